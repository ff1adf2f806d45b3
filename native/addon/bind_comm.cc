// Communicators as integer handles: the native side of src/native/comm.ts. A call checks, enqueues
// on the communicator's stream and returns.
#include "addon/environment.h"
#include "comm/engines.h"

namespace simper::addon {
namespace {

std::shared_ptr<comm::Communicator> make(const std::string& engine, comm::Options options,
                                         std::shared_ptr<Device> device) {
  if (engine == "self") return comm::make_self(std::move(options));
  if (engine == "mpi") return comm::make_mpi(std::move(options), device->in_host_memory());
  if (engine == "nccl") return comm::make_nccl(std::move(options), std::move(device));
  throw ContractError("open: the engine is \"" + engine + "\", expected self, mpi or nccl");
}

// openComm(stream, engine, rank, size, uniqueId, timeoutSeconds): connects with the next call.
Napi::Value open_comm(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Environment& environment = Environment::of(info.Env());
    const double id = number(info, 0);
    StreamEntry& stream = *require(environment.streams, id, "stream");
    comm::Options options;
    options.rank = static_cast<int>(number(info, 2));
    options.size = static_cast<int>(number(info, 3));
    const auto unique_id = info[4].As<Napi::Uint8Array>();
    options.unique_id.assign(unique_id.Data(), unique_id.Data() + unique_id.ByteLength());
    options.timeout_seconds = number(info, 5);
    auto device = require(environment.devices, stream.device(), "device");
    auto made = make(info[1].As<Napi::String>(), std::move(options), std::move(device));
    stream.before_close([comm = std::weak_ptr(made)] {
      if (const auto open = comm.lock()) open->abort("the communicator's stream was closed");
    });
    return Napi::Number::New(info.Env(), environment.comms.add({std::move(made), id}));
  });
}

struct Call {
  const Napi::CallbackInfo& info;
  Environment& environment;
  comm::Communicator& comm;
  std::shared_ptr<comm::Communicator> keep;
  StreamEntry& stream;

  explicit Call(const Napi::CallbackInfo& info)
      : Call(info, Environment::of(info.Env()),
             require(Environment::of(info.Env()).comms, number(info, 0), "communicator")) {}

  // An argument that is a tensor of the stream's device.
  Tensor tensor(size_t i) {
    const TensorEntry& entry = require(environment.tensors, number(info, i), "tensor");
    if (require(environment.arenas, entry.arena, "arena").device != stream.device())
      throw ContractError("the tensor and the communicator's stream are of different devices");
    return entry.tensor;
  }

  template <class F>
  void enqueue(const char* op, F&& work) {
    stream.stream().enqueue(op, Command(std::forward<F>(work)));
  }

 private:
  Call(const Napi::CallbackInfo& info, Environment& environment, CommEntry& entry)
      : info(info),
        environment(environment),
        comm(*entry.comm),
        keep(entry.comm),
        stream(*require(environment.streams, entry.stream, "stream")) {}
};

Napi::Value connect_comm(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    call.enqueue("open", [comm = call.keep](Context& context) { comm->open(context); });
    return call.stream.promise(info.Env(), info.Env().Undefined());
  });
}

Napi::Value comm_world(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Call call(info);
    Napi::Array world = Napi::Array::New(info.Env(), 2);
    world.Set(0u, call.comm.rank());
    world.Set(1u, call.comm.size());
    return world;
  });
}

// comm_all_gather(comm, to, from)
Napi::Value all_gather(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    const Tensor to = call.tensor(1), from = call.tensor(2);
    call.comm.check_all_gather(to, from);
    call.enqueue("all_gather", [comm = call.keep, to, from](Context& context) {
      comm->all_gather(context, to, from);
    });
    return info.Env().Undefined();
  });
}

// comm_reduce_scatter(comm, to, from)
Napi::Value reduce_scatter(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    const Tensor to = call.tensor(1), from = call.tensor(2);
    call.comm.check_reduce_scatter(to, from);
    call.enqueue("reduce_scatter", [comm = call.keep, to, from](Context& context) {
      comm->reduce_scatter(context, to, from);
    });
    return info.Env().Undefined();
  });
}

// comm_all_reduce(comm, x)
Napi::Value all_reduce(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    const Tensor x = call.tensor(1);
    call.comm.check_all_reduce(x);
    call.enqueue("all_reduce",
                 [comm = call.keep, x](Context& context) { comm->all_reduce(context, x); });
    return info.Env().Undefined();
  });
}

// comm_broadcast(comm, x, root)
Napi::Value broadcast(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    const Tensor x = call.tensor(1);
    const int root = static_cast<int>(number(info, 2));
    call.comm.check_broadcast(x, root);
    call.enqueue("broadcast", [comm = call.keep, x, root](Context& context) {
      comm->broadcast(context, x, root);
    });
    return info.Env().Undefined();
  });
}

// comm_broadcast_bytes(comm, bytes, root): a promise; the array is the root's once it is settled.
Napi::Value broadcast_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    auto array = info[1].As<Napi::Uint8Array>();
    const int root = static_cast<int>(number(info, 2));
    call.comm.check_root("broadcast_bytes", root);
    uint8_t* data = array.Data();
    const auto count = static_cast<int64_t>(array.ByteLength());
    call.enqueue("broadcast_bytes", [comm = call.keep, data, count, root](Context& context) {
      comm->broadcast_bytes(context, data, count, root);
    });
    return call.stream.promise(info.Env(), array);
  });
}

Napi::Value barrier(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    call.enqueue("barrier", [comm = call.keep](Context& context) { comm->barrier(context); });
    return info.Env().Undefined();
  });
}

Napi::Value comm_counters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Napi::Array lines = Napi::Array::New(info.Env());
    const auto& entry = require(Environment::of(info.Env()).comms, number(info, 0), "communicator");
    for (const comm::Counter& counter : entry.comm->counters()) {
      Napi::Object line = Napi::Object::New(info.Env());
      line.Set("op", counter.op);
      line.Set("calls", static_cast<double>(counter.calls));
      line.Set("bytes", static_cast<double>(counter.bytes));
      lines.Set(lines.Length(), line);
    }
    return lines;
  });
}

// abort_comm(comm, reason)
Napi::Value abort_comm(const Napi::CallbackInfo& info) {
  CommEntry* entry = Environment::of(info.Env()).comms.find(number(info, 0));
  if (entry) entry->comm->abort(info[1].As<Napi::String>());
  return info.Env().Undefined();
}

// close_comm(comm): a promise; the handle is dead at once.
Napi::Value close_comm(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Call call(info);
    call.enqueue("close", [comm = call.keep](Context& context) { comm->close(context); });
    Napi::Value promise = call.stream.promise(info.Env(), info.Env().Undefined());
    call.environment.comms.remove(number(info, 0));
    return promise;
  });
}

// drop_comm(comm): of a communicator that was never open, or is not to wait for anyone.
Napi::Value drop_comm(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).comms.remove(number(info, 0));
  return info.Env().Undefined();
}

Napi::Value unique_id(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::vector<uint8_t> id = comm::nccl_unique_id();
    Napi::Uint8Array array = Napi::Uint8Array::New(info.Env(), id.size());
    std::copy(id.begin(), id.end(), array.Data());
    return array;
  });
}

}  // namespace

void bind_comm(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  add("openComm", open_comm);
  add("connectComm", connect_comm);
  add("commWorld", comm_world);
  add("commAllGather", all_gather);
  add("commReduceScatter", reduce_scatter);
  add("commAllReduce", all_reduce);
  add("commBroadcast", broadcast);
  add("commBroadcastBytes", broadcast_bytes);
  add("commBarrier", barrier);
  add("commCounters", comm_counters);
  add("abortComm", abort_comm);
  add("closeComm", close_comm);
  add("dropComm", drop_comm);
  add("ncclUniqueId", unique_id);
}

}  // namespace simper::addon
