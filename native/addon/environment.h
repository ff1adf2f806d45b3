#pragma once
#include <napi.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/arena.h"
#include "core/device.h"
#include "core/error.h"
#include "core/event.h"
#include "core/stream.h"

namespace simper::addon {

// Handles are integers: slot + 2^24 · generation. Freeing a slot raises its generation, so that an
// id kept too long is an error and never another object.
template <class T>
class SlotTable {
 public:
  double add(T value) {
    uint32_t slot;
    if (free_.empty()) {
      slot = static_cast<uint32_t>(slots_.size());
      slots_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    slots_[slot].value.emplace(std::move(value));
    return static_cast<double>(slot) + kSlots * slots_[slot].generation;
  }

  // Null when the id is stale or was never given out.
  T* find(double id) {
    if (!(id >= 0) || id >= kSlots * kGenerations) return nullptr;
    const auto whole = static_cast<uint64_t>(id);
    const uint64_t slot = whole % static_cast<uint64_t>(kSlots);
    if (slot >= slots_.size() || slots_[slot].generation != whole / static_cast<uint64_t>(kSlots))
      return nullptr;
    return slots_[slot].value ? &*slots_[slot].value : nullptr;
  }

  void remove(double id) {
    if (!find(id)) return;
    const auto slot =
        static_cast<uint32_t>(static_cast<uint64_t>(id) % static_cast<uint64_t>(kSlots));
    slots_[slot].value.reset();
    ++slots_[slot].generation;
    free_.push_back(slot);
  }

  template <class F>
  void for_each(F&& f) {
    for (Slot& slot : slots_) {
      if (slot.value) f(*slot.value);
    }
  }

 private:
  static constexpr double kSlots = 1 << 24,
                          kGenerations = 1 << 28;  // ids stay below 2^52: exact doubles
  struct Slot {
    std::optional<T> value;
    uint64_t generation = 0;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

struct ArenaEntry {
  std::unique_ptr<Arena> arena;
  double device;
  std::vector<double> tensors;  // freed with the arena
};

struct TensorEntry {
  Tensor tensor;
  double arena;
};

// A stream with the thread-safe function that settles its promises on the JavaScript thread.
class StreamEntry {
 public:
  StreamEntry(Napi::Env env, double device, std::shared_ptr<Device> owner, bool synchronous);
  ~StreamEntry();

  Stream& stream() { return *stream_; }
  double device() const { return device_; }
  // Called before the worker is joined: what may hold it up is told to give up.
  void before_close(std::function<void()> call) { before_close_.push_back(std::move(call)); }
  // A promise settled once everything enqueued so far has run; `keep` lives until then.
  Napi::Value promise(Napi::Env env, Napi::Value keep);

 private:
  struct Pending;
  void settle(Napi::Env env, Pending* pending);
  static void close(void* entry);  // a cleanup hook of the environment, too

  Napi::Env env_;
  double device_;
  std::shared_ptr<Device> owner_;
  Napi::ThreadSafeFunction settle_;
  std::unique_ptr<Stream> stream_;
  std::vector<std::function<void()>> before_close_;
  int pending_ = 0;  // while promises wait, the event loop must not end
};

// An event belongs to the stream that records it first; -1 while none has.
struct EventEntry {
  std::shared_ptr<Event> event;
  double device;
  double recorder = -1;
};

// A communicator and the stream that it works on.
struct CommEntry {
  std::shared_ptr<comm::Communicator> comm;
  double stream;
};

// Everything one Node environment (the main thread or a worker) has opened.
struct Environment {
  SlotTable<std::shared_ptr<Device>> devices;
  SlotTable<std::unique_ptr<StreamEntry>> streams;
  SlotTable<ArenaEntry> arenas;
  SlotTable<TensorEntry> tensors;
  SlotTable<EventEntry> events;
  SlotTable<CommEntry> comms;
  Napi::FunctionReference contract_error, memory_error, device_error, comm_error;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }
};

inline double number(const Napi::CallbackInfo& info, size_t i) {
  return info[i].As<Napi::Number>().DoubleValue();
}

template <class T>
T& require(SlotTable<T>& table, double id, const char* what) {
  if (T* found = table.find(id)) return *found;
  throw ContractError(std::string("this ") + what +
                      " was disposed or never existed; keep its owner alive while it is used");
}

// The JavaScript error (ContractError, MemoryError, DeviceError, CommError) for the C++ exception
// in flight.
Napi::Error to_js_error(Napi::Env env, std::exception_ptr error);

// Runs f and turns C++ exceptions into the JavaScript classes of src/errors.ts.
template <class F>
auto guarded(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception&) {
    throw to_js_error(env, std::current_exception());
  }
}

void bind_handles(Napi::Env env, Napi::Object exports);
void bind_comm(Napi::Env env, Napi::Object exports);
void bind_ops(Napi::Env env, Napi::Object exports);
void bind_info(Napi::Env env, Napi::Object exports);

}  // namespace simper::addon
