// Devices, streams, arenas and tensors as integer handles. The typed face is src/native/*.ts, which
// checks argument types; the checks here are those that only the owner of the memory can make.
#include "addon/environment.h"
#include "core/error.h"

namespace simper::addon {
namespace {

std::vector<int64_t> shape_argument(const Napi::CallbackInfo& info, size_t i) {
  const Napi::Array array = info[i].As<Napi::Array>();
  std::vector<int64_t> shape(array.Length());
  double elements = 1;
  for (uint32_t d = 0; d < shape.size(); ++d) {
    const double extent = array.Get(d).As<Napi::Number>().DoubleValue();
    if (!(extent >= 0) || extent > 9e15 ||
        extent != static_cast<double>(static_cast<int64_t>(extent))) {
      throw ContractError("a tensor's shape has the extent " + std::to_string(extent) +
                          ", expected a whole number >= 0");
    }
    shape[d] = static_cast<int64_t>(extent);
    elements *= extent;
  }
  // Above this, sizes in bytes would no longer be exact anywhere on the way.
  if (elements > 1e15)
    throw MemoryError("a tensor of " + std::to_string(elements) +
                      " elements does not fit into any memory");
  if (shape.empty() || shape.size() > kMaxRank) {
    throw ContractError("a tensor has " + std::to_string(shape.size()) +
                        " dimensions, expected 1 to " + std::to_string(kMaxRank));
  }
  return shape;
}

Tensor& tensor(Napi::Env env, double id) {
  return require(Environment::of(env).tensors, id, "tensor").tensor;
}

std::shared_ptr<Device> device_named(const std::string& name, int threads, int index) {
  if (name == "cuda") return open_cuda_device(index);
  if (name == "emulated") return open_emulated_device(threads);
  return open_cpu_device(threads);
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string name = info[0].As<Napi::String>();
    auto device =
        device_named(name, static_cast<int>(number(info, 1)), static_cast<int>(number(info, 2)));
    return Napi::Number::New(info.Env(),
                             Environment::of(info.Env()).devices.add(std::move(device)));
  });
}

// device_count(name): how many of them an index can choose among.
Napi::Value device_count(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string name = info[0].As<Napi::String>();
    return Napi::Number::New(info.Env(), name == "cuda" ? cuda_device_count() : 1);
  });
}

// device_memory(device): {free, total} bytes of its own memory, undefined where it computes in the
// machine's.
Napi::Value device_memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const DeviceMemory memory = require(environment.devices, number(info, 0), "device")->memory();
    if (memory.total == 0) return info.Env().Undefined();
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("free", static_cast<double>(memory.free));
    result.Set("total", static_cast<double>(memory.total));
    return result;
  });
}

Napi::Value limit_threads(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    require(Environment::of(info.Env()).devices, number(info, 0), "device")
        ->limit_threads(static_cast<int>(number(info, 1)));
    return info.Env().Undefined();
  });
}

Napi::Value close_device(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).devices.remove(number(info, 0));
  return info.Env().Undefined();
}

Napi::Value open_stream(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const double id = number(info, 0);
    const auto device = require(environment.devices, id, "device");
    const bool synchronous = info[1].As<Napi::Boolean>();
    return Napi::Number::New(info.Env(), environment.streams.add(std::make_unique<StreamEntry>(
                                             info.Env(), id, device, synchronous)));
  });
}

Napi::Value close_stream(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).streams.remove(number(info, 0));
  return info.Env().Undefined();
}

// Before the process exits: its static destructors must not meet a worker that still computes.
Napi::Value shutdown(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).streams = {};
  return info.Env().Undefined();
}

Napi::Value open_arena(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const double device_id = number(info, 0), bytes = number(info, 1);
    Device& device = *require(environment.devices, device_id, "device");
    if (!(bytes >= 0) || bytes > 9e15)
      throw ContractError("an arena of " + std::to_string(bytes) + " bytes was asked for");
    ArenaEntry entry{
        std::make_unique<Arena>(device, static_cast<int64_t>(bytes), info[2].As<Napi::String>()),
        device_id,
        {}};
    // V8 sees our memory, so that its own collections are paced by the true size of the process.
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), entry.arena->bytes());
    return Napi::Number::New(info.Env(), environment.arenas.add(std::move(entry)));
  });
}

// The ids die now; the memory goes when the work already enqueued on the device's streams is done
// with it.
Napi::Value close_arena(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  const double id = number(info, 0);
  if (ArenaEntry* entry = environment.arenas.find(id)) {
    for (const double tensor_id : entry->tensors) environment.tensors.remove(tensor_id);
    environment.streams.for_each([&](std::unique_ptr<StreamEntry>& stream) {
      if (stream->device() != entry->device) return;
      stream->stream().enqueue("release", Command([keep = entry->arena->storage()](Context&) {}));
    });
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -entry->arena->bytes());
    environment.arenas.remove(id);
  }
  return info.Env().Undefined();
}

Napi::Value arena_used(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    ArenaEntry& entry = require(Environment::of(info.Env()).arenas, number(info, 0), "arena");
    return Napi::Number::New(info.Env(), static_cast<double>(entry.arena->used()));
  });
}

Napi::Value add_tensor(Napi::Env env, double arena_id, const Tensor& tensor) {
  Environment& environment = Environment::of(env);
  const double id = environment.tensors.add({tensor, arena_id});
  require(environment.arenas, arena_id, "arena").tensors.push_back(id);
  return Napi::Number::New(env, id);
}

Napi::Value allocate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const double id = number(info, 0);
    ArenaEntry& entry = require(Environment::of(info.Env()).arenas, id, "arena");
    const auto dtype = static_cast<DType>(static_cast<int32_t>(number(info, 1)));
    const std::vector<int64_t> shape = shape_argument(info, 2);
    return add_tensor(
        info.Env(), id,
        entry.arena->allocate(dtype, static_cast<int32_t>(shape.size()), shape.data()));
  });
}

int64_t span_bytes(const Tensor& t) {
  return t.size() == 0 ? 0 : ((t.rows() - 1) * t.row_stride + t.row_size()) * size_of(t.dtype);
}

// view(base, byteOffset, dtype, shape, rowStride): another look at the same bytes.
Napi::Value view(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const TensorEntry base = require(environment.tensors, number(info, 0), "tensor");
    const auto offset = static_cast<int64_t>(number(info, 1));
    Tensor result;
    result.dtype = static_cast<DType>(static_cast<int32_t>(number(info, 2)));
    const std::vector<int64_t> shape = shape_argument(info, 3);
    result.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), result.shape);
    result.row_stride =
        info[4].IsNumber() ? static_cast<int64_t>(number(info, 4)) : result.row_size();
    result.data = static_cast<char*>(base.tensor.data) + offset;
    const bool sane =
        static_cast<double>(result.rows()) * static_cast<double>(result.row_stride) < 1e15;
    if (!sane || offset < 0 || offset % size_of(result.dtype) != 0 ||
        result.row_stride < result.row_size() ||
        offset + span_bytes(result) > span_bytes(base.tensor)) {
      throw ContractError("view: " + std::to_string(span_bytes(result)) + " bytes from byte " +
                          std::to_string(offset) + " do not lie inside the tensor's " +
                          std::to_string(span_bytes(base.tensor)) + " bytes");
    }
    return add_tensor(info.Env(), base.arena, result);
  });
}

// set_window(window, base, begin, rows): makes `window` the rows [begin, begin + rows) of `base`.
// Work that is already enqueued keeps the rows it was enqueued with.
Napi::Value set_window(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Tensor& window = tensor(info.Env(), number(info, 0));
    const Tensor& base = tensor(info.Env(), number(info, 1));
    const double begin = number(info, 2), rows = number(info, 3);
    if (!(begin >= 0) || !(rows >= 0) || begin + rows > static_cast<double>(base.rows())) {
      throw ContractError("window: rows [" + std::to_string(static_cast<int64_t>(begin)) + ", " +
                          std::to_string(static_cast<int64_t>(begin + rows)) +
                          ") of a tensor with " + std::to_string(base.rows()) + " rows");
    }
    window = base;
    window.shape[0] = static_cast<int64_t>(rows);
    window.data = static_cast<char*>(base.data) +
                  static_cast<int64_t>(begin) * base.row_stride * size_of(base.dtype);
    return info.Env().Undefined();
  });
}

StreamEntry& stream(const Napi::CallbackInfo& info) {
  return *require(Environment::of(info.Env()).streams, number(info, 0), "stream");
}

void expect_bytes(const char* what, const Tensor& tensor, size_t bytes) {
  const int64_t expected = tensor.size() * size_of(tensor.dtype);
  if (!tensor.dense())
    throw ContractError(std::string(what) + ": the tensor is a strided view, expected a dense one");
  if (static_cast<int64_t>(bytes) != expected) {
    throw ContractError(std::string(what) + ": the array has " + std::to_string(bytes) +
                        " bytes, expected " + std::to_string(expected) + " = size of the tensor");
  }
}

// write(stream, tensor, typedArray): the array is copied now and may be reused at once.
Napi::Value write(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Tensor target = tensor(info.Env(), number(info, 1));
    const auto array = info[2].As<Napi::TypedArray>();
    expect_bytes("write", target, array.ByteLength());
    const auto* source =
        static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    auto staging = std::make_shared<std::vector<uint8_t>>(source, source + array.ByteLength());
    stream(info).stream().enqueue("write", Command([target, staging](Context& context) {
                                    context.upload(target.data, staging->data(),
                                                   static_cast<int64_t>(staging->size()));
                                  }));
    return info.Env().Undefined();
  });
}

// read(stream, tensor, typedArray): a promise; the array is filled once everything before has run.
Napi::Value read(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    StreamEntry& entry = stream(info);
    const Tensor source = tensor(info.Env(), number(info, 1));
    const auto array = info[2].As<Napi::TypedArray>();
    expect_bytes("read", source, array.ByteLength());
    auto* target = static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    entry.stream().enqueue("read", Command([source, target](Context& context) {
                             context.download(target, source.data,
                                              source.size() * size_of(source.dtype));
                           }));
    return entry.promise(info.Env(), array);
  });
}

Napi::Value finish(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return stream(info).promise(info.Env(), info.Env().Undefined());
  });
}

// take_profile(stream): [{op, calls, seconds}] since the last call.
Napi::Value take_profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Napi::Array lines = Napi::Array::New(info.Env());
    for (const OpTime& time : stream(info).stream().take_profile()) {
      Napi::Object line = Napi::Object::New(info.Env());
      line.Set("op", time.op);
      line.Set("calls", static_cast<double>(time.calls));
      line.Set("seconds", time.seconds);
      lines.Set(lines.Length(), line);
    }
    return lines;
  });
}

// set_profiling(stream, wanted): whether the next takeProfile is wanted, for devices that must be
// told.
Napi::Value set_profiling(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    stream(info).stream().set_profiling(info[1].As<Napi::Boolean>());
    return info.Env().Undefined();
  });
}

Napi::Value open_event(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const double id = number(info, 0);
    const auto device = require(environment.devices, id, "device");
    return Napi::Number::New(info.Env(), environment.events.add({device->make_event(), id}));
  });
}

Napi::Value close_event(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).events.remove(number(info, 0));
  return info.Env().Undefined();
}

// record(stream, event)
Napi::Value record(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    StreamEntry& entry = stream(info);
    EventEntry& event = require(Environment::of(info.Env()).events, number(info, 1), "event");
    if (event.device != entry.device())
      throw ContractError("record: the event and the stream are of different devices");
    if (event.recorder >= 0 && event.recorder != number(info, 0))
      throw ContractError(
          "record: another stream has recorded this event before, expected one and "
          "the same each time; use an event of its own");
    event.recorder = number(info, 0);
    entry.stream().record(event.event);
    return info.Env().Undefined();
  });
}

// wait(stream, event)
Napi::Value wait(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    StreamEntry& entry = stream(info);
    entry.stream().wait(
        require(Environment::of(info.Env()).events, number(info, 1), "event").event);
    return info.Env().Undefined();
  });
}

Napi::Value push_range(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    stream(info).stream().push_range(info[1].As<Napi::String>());
    return info.Env().Undefined();
  });
}

Napi::Value pop_range(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    stream(info).stream().pop_range();
    return info.Env().Undefined();
  });
}

Napi::Value set_error_classes(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  environment.contract_error = Napi::Persistent(info[0].As<Napi::Function>());
  environment.memory_error = Napi::Persistent(info[1].As<Napi::Function>());
  environment.device_error = Napi::Persistent(info[2].As<Napi::Function>());
  environment.comm_error = Napi::Persistent(info[3].As<Napi::Function>());
  return info.Env().Undefined();
}

}  // namespace

Napi::Error to_js_error(Napi::Env env, std::exception_ptr error) {
  const Environment& environment = Environment::of(env);
  const auto make = [&](const Napi::FunctionReference& type, const char* message) {
    if (type.IsEmpty()) return Napi::Error::New(env, message);
    return Napi::Error(env, type.New({Napi::String::New(env, message)}));
  };
  try {
    std::rethrow_exception(error);
  } catch (const ContractError& e) {
    return make(environment.contract_error, e.what());
  } catch (const MemoryError& e) {
    return make(environment.memory_error, e.what());
  } catch (const CommError& e) {
    return make(environment.comm_error, e.what());
  } catch (const std::exception& e) {
    return make(environment.device_error, e.what());
  }
}

void bind_handles(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("setErrorClasses", set_error_classes);
  add("openDevice", open_device);
  add("deviceCount", device_count);
  add("closeDevice", close_device);
  add("deviceMemory", device_memory);
  add("limitThreads", limit_threads);
  add("openStream", open_stream);
  add("closeStream", close_stream);
  add("shutdown", shutdown);
  add("openArena", open_arena);
  add("closeArena", close_arena);
  add("arenaUsed", arena_used);
  add("allocate", allocate);
  add("view", view);
  add("setWindow", set_window);
  add("write", write);
  add("read", read);
  add("finish", finish);
  add("takeProfile", take_profile);
  add("setProfiling", set_profiling);
  add("openEvent", open_event);
  add("closeEvent", close_event);
  add("record", record);
  add("wait", wait);
  add("pushRange", push_range);
  add("popRange", pop_range);
}

}  // namespace simper::addon
