// Collectives between GPUs. NCCL is opened when it is there; no call of ours waits inside it. A
// collective is put on the GPU's queue and the worker goes on, as with every other op, so what has
// been put there is watched by a thread: an operation that is not done in time, an error that the
// library has met, or `abort` end the communicator there, which lets the kernels that wait for
// others return.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <thread>

#include "comm/engines.h"
#include "comm/nccl_api.h"
#include "core/error.h"
#include "core/event.h"
#include "core/library.h"

namespace simper::comm {
namespace nccl {
namespace {

// The functions of the library that was found, or what is missing.
struct Library {
#define MEMBER(ours, theirs, result, parameters) result(*ours) parameters = nullptr;
  SIMPER_NCCL_FUNCTIONS(MEMBER)
#undef MEMBER
  int number = 0;  // of the version
  std::string path, missing, brief;
};

std::string version_text(int number) {  // 23007: 2.30.7
  return std::to_string(number / 10000) + "." + std::to_string(number / 100 % 100) + "." +
         std::to_string(number % 100);
}

std::string bind(Library& library, void* handle) {
#define BIND(ours, theirs, result, parameters)                                     \
  library.ours = reinterpret_cast<decltype(library.ours)>(dlsym(handle, #theirs)); \
  if (!library.ours) return std::string("it has no function ") + #theirs;
  SIMPER_NCCL_FUNCTIONS(BIND)
#undef BIND
  if (library.version(&library.number) != kSuccess) return "it does not tell its version";
  if (library.number >= kOldest) return "";
  return "its version is " + version_text(library.number) + ", expected 2.14 or newer";
}

Library open_library() {
  Library library;
  const LibrarySearch search = {
      "NCCL (libnccl.so.2)",
      "SIMPER_NCCL",
      {"libnccl.so.2"},
      {"nvidia/nccl/lib"},
      "install libnccl2 from NVIDIA's packages or `pip install nvidia-nccl-cu13`"};
  FoundLibrary found = find_library(search, [&](void* handle) { return bind(library, handle); });
  library.path = std::move(found.path);
  library.missing = std::move(found.missing);
  library.brief = std::move(found.brief);
  return library;
}

const Library& library() {
  static const Library opened = open_library();
  return opened;
}

}  // namespace
}  // namespace nccl

namespace {

using Clock = std::chrono::steady_clock;

const nccl::Library& usable_library() {
  if (nccl::library().missing.empty()) return nccl::library();
  throw CommError("open: NCCL cannot be used: " + nccl::library().missing);
}

class Nccl final : public Communicator {
 public:
  Nccl(Options options, std::shared_ptr<Device> device)
      : Communicator(std::move(options)), device_(std::move(device)), nccl_(usable_library()) {
    if (options_.size < 0)
      throw ContractError("open: the engine nccl has to be told rank and size");
    const size_t bytes = options_.unique_id.size();
    if (bytes != sizeof(nccl::UniqueId)) {
      throw ContractError("open: uniqueId has " + std::to_string(bytes) + " bytes, expected the " +
                          std::to_string(sizeof(nccl::UniqueId)) + " of ncclUniqueId()");
    }
    set_world(options_.rank, options_.size);
    token_ = device_->allocate(64);
  }

  ~Nccl() override {
    {
      std::lock_guard lock(watch_mutex_);
      leaving_ = true;
    }
    watch_changed_.notify_all();
    if (watcher_.joinable()) watcher_.join();
    end();
  }

  const char* engine() const override { return "nccl"; }

 protected:
  void connect(Context& context) override {
    started_ = Clock::now();
    nccl::UniqueId id;
    std::memcpy(id.bytes, options_.unique_id.data(), sizeof id.bytes);
    nccl::Config config{sizeof(nccl::Config), nccl::kConfigMagic, nccl::kOldest, 0};
    nccl::Comm comm = nullptr;
    const nccl::Status status = nccl_.init(&comm, size(), id, rank(), &config);
    comm_ = comm;
    settle(context, status);
    // What the GPU was asked to do, and whether it came to that, are two things.
    context.settle_checks()->add([me = weak_from_this()] {
      const auto self = std::static_pointer_cast<Nccl>(me.lock());
      if (self) self->check_queue();
    });
    watcher_ = std::thread([this] { watch(); });
  }

  void gather(Context& context, char* to, const char* from, int64_t part_bytes) override {
    launch(context, (size() - 1) * part_bytes, [&](nccl::Comm comm, nccl::CudaStream stream) {
      return nccl_.all_gather(from, to, static_cast<size_t>(part_bytes), nccl::kUint8, comm,
                              stream);
    });
  }

  void scatter(Context& context, float* to, const float* from, int64_t part) override {
    launch(context, (size() - 1) * 4 * part, [&](nccl::Comm comm, nccl::CudaStream stream) {
      return nccl_.reduce_scatter(from, to, static_cast<size_t>(part), nccl::kFloat32, nccl::kSum,
                                  comm, stream);
    });
  }

  void reduce(Context& context, float* x, int64_t count) override {
    launch(context, 2 * (size() - 1) * (4 * count / size()),
           [&](nccl::Comm comm, nccl::CudaStream stream) {
             return nccl_.all_reduce(x, x, static_cast<size_t>(count), nccl::kFloat32, nccl::kSum,
                                     comm, stream);
           });
  }

  void send_all(Context& context, char* bytes, int64_t count, int root, bool host) override {
    char* at = bytes;
    if (host) {  // through the device's memory, at the beginning of a run
      staged_.push_back(device_->allocate(count));
      at = static_cast<char*>(staged_.back()->data());
      context.upload(at, bytes, count);
    }
    launch(context, rank() == root ? (size() - 1) * count : 0,
           [&](nccl::Comm comm, nccl::CudaStream stream) {
             return nccl_.broadcast(at, at, static_cast<size_t>(count), nccl::kUint8, root, comm,
                                    stream);
           });
    if (host) context.download(bytes, at, count);
  }

  void meet(Context& context) override {
    launch(context, 0, [&](nccl::Comm comm, nccl::CudaStream stream) {
      return nccl_.all_reduce(token_->data(), token_->data(), 1, nccl::kFloat32, nccl::kSum, comm,
                              stream);
    });
  }

  // What is on the GPU's queue is waited for by the library.
  void disconnect(Context& context) override {
    started_ = Clock::now();
    call(context, [&](nccl::Comm comm) { return nccl_.finalize(comm); });
    std::lock_guard lock(calls_);
    if (nccl::Comm comm = comm_.exchange(nullptr)) {
      const nccl::Status status = nccl_.destroy(comm);
      if (status != nccl::kSuccess) fail(text(status));
    }
  }

  void on_abort() override { watch_changed_.notify_all(); }

 private:
  // An operation that is on the GPU's queue.
  struct Flight {
    const char* op = nullptr;
    int64_t number = 0;
    std::shared_ptr<Event> done;
  };

  std::string text(nccl::Status status) const {
    const char* more = nccl_.last_error(nullptr);
    return std::string("NCCL: ") + nccl_.status_text(status) +
           (more && *more ? std::string(": ") + more : "");
  }

  void check_failure() const {
    if (const std::exception_ptr error = failure()) std::rethrow_exception(error);
  }

  // On the worker, when its stream is waited for.
  void check_queue() {
    {
      std::lock_guard lock(watch_mutex_);
      if (const std::exception_ptr problem = look()) remember(problem);
    }
    check_failure();
  }

  // Puts a collective on the queue of the GPU, and an event behind it.
  template <class F>
  void launch(Context& context, int64_t bytes, F&& function) {
    started_ = Clock::now();
    const auto stream = static_cast<nccl::CudaStream>(context.native_stream());
    call(context, [&](nccl::Comm comm) { return function(comm, stream); });
    sent(bytes);
    Flight flight{op_, number_, nullptr};
    {
      std::lock_guard lock(watch_mutex_);
      if (!events_.empty()) {
        flight.done = std::move(events_.back());
        events_.pop_back();
      }
    }
    if (!flight.done) flight.done = device_->make_event();
    flight.done->record(flight.done->issue(), &context, nullptr);
    std::lock_guard lock(watch_mutex_);
    last_op_ = op_;
    last_number_ = number_;
    if (flights_.empty()) head_since_ = Clock::now();
    flights_.push_back(std::move(flight));
  }

  // Calls the library and waits until it has done what it was asked for, which in this mode it does
  // on threads of its own.
  template <class F>
  void call(Context& context, F&& function) {
    nccl::Status status = nccl::kSuccess;
    {
      std::lock_guard lock(calls_);
      nccl::Comm comm = comm_;
      if (!comm) given_up();
      status = function(comm);
    }
    settle(context, status);
  }

  void settle(Context& context, nccl::Status status) {
    const auto since = Clock::now();
    for (int polls = 0; status == nccl::kInProgress; ++polls) {
      {
        std::lock_guard lock(calls_);
        nccl::Comm comm = comm_;
        if (!comm) given_up();
        const nccl::Status asked = nccl_.async_error(comm, &status);
        if (asked != nccl::kSuccess) status = asked;
      }
      if (status != nccl::kInProgress) break;
      try {
        check_alive(context);
        if (seconds_since(started_) > options_.timeout_seconds) fail(late());
      } catch (...) {
        end();
        throw;
      }
      if (polls < 20) {
        std::this_thread::yield();
        continue;
      }
      using std::chrono::microseconds;
      std::this_thread::sleep_for(std::clamp<Clock::duration>(
          (Clock::now() - since) / 8, microseconds(10), microseconds(1000)));
    }
    if (status == nccl::kSuccess) return;
    const std::string problem = text(status);
    end();
    fail(problem);
  }

  [[noreturn]] void given_up() const {
    check_failure();
    fail("the communicator was given up");
  }

  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  std::string late() const {
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%g s", options_.timeout_seconds);
    return std::string("not done within ") + seconds +
           "; a rank did not come, or a connection is stuck";
  }

  // The thread that looks after what the worker has put on the queue. It ends with the first
  // failure.
  void watch() {
    device_->use();
    std::unique_lock lock(watch_mutex_);
    for (;;) {
      watch_changed_.wait_for(lock, std::chrono::milliseconds(20));
      if (leaving_) return;
      std::exception_ptr problem = look();
      lock.unlock();
      if (problem) remember(problem);
      if (failure()) return end();
      lock.lock();
    }
  }

  // What is wrong with the operations on the queue, or null.
  std::exception_ptr look() {
    std::string problem = library_error();
    const char* op = last_op_;
    int64_t number = last_number_;
    try {
      while (!flights_.empty() && flights_.front().done->passed()) {
        events_.push_back(std::move(flights_.front().done));
        flights_.erase(flights_.begin());
        head_since_ = Clock::now();
      }
    } catch (const std::exception& error) {
      if (problem.empty()) problem = error.what();
    }
    if (!flights_.empty()) {
      op = flights_.front().op;
      number = flights_.front().number;
      if (problem.empty() && seconds_since(head_since_) > options_.timeout_seconds)
        problem = late();
    }
    if (problem.empty()) return nullptr;
    return std::make_exception_ptr(CommError(message(op, number, problem)));
  }

  // What the library has met since it took the calls, a lost connection for one.
  std::string library_error() {
    std::unique_lock lock(calls_, std::try_to_lock);
    nccl::Comm comm = comm_;
    if (!lock || !comm) return "";
    nccl::Status status = nccl::kSuccess;
    const nccl::Status asked = nccl_.async_error(comm, &status);
    if (asked != nccl::kSuccess) status = asked;
    return status == nccl::kSuccess || status == nccl::kInProgress ? "" : text(status);
  }

  // Gives the communicator up, once. A call that does not come back is not waited for: giving up is
  // what makes it come back.
  void end() {
    std::unique_lock lock(calls_, std::chrono::seconds(1));
    if (nccl::Comm comm = comm_.exchange(nullptr)) nccl_.abort(comm);
  }

  const std::shared_ptr<Device> device_;
  const nccl::Library& nccl_;
  std::shared_ptr<Storage> token_;                // what a barrier adds up
  std::vector<std::shared_ptr<Storage>> staged_;  // of broadcast_bytes
  std::timed_mutex calls_;                        // of the library
  std::atomic<nccl::Comm> comm_ = nullptr;
  Clock::time_point started_;  // of the operation that the worker is in
  std::mutex watch_mutex_;     // of what follows
  std::condition_variable watch_changed_;
  std::vector<Flight> flights_;  // first in, first out: a few dozen
  std::vector<std::shared_ptr<Event>> events_;
  const char* last_op_ = "open";
  int64_t last_number_ = 0;
  Clock::time_point head_since_;
  bool leaving_ = false;
  std::thread watcher_;
};

}  // namespace

std::shared_ptr<Communicator> make_nccl(Options options, std::shared_ptr<Device> device) {
  const std::string name = device->name();
  if (name != "cuda" && name != "emulated") {  // the emulated one: with a library made for tests
    throw CommError("open: the engine nccl moves bytes of GPUs, this is the " + name +
                    " device; expected the engine mpi");
  }
  return std::make_shared<Nccl>(std::move(options), std::move(device));
}

std::vector<uint8_t> nccl_unique_id() {
  const nccl::Library& nccl = usable_library();
  nccl::UniqueId id;
  const nccl::Status status = nccl.unique_id(&id);
  if (status != nccl::kSuccess) {
    throw CommError(std::string("ncclGetUniqueId: ") + nccl.status_text(status) + ": " +
                    nccl.last_error(nullptr));
  }
  return {id.bytes, id.bytes + sizeof id.bytes};
}

EngineInfo nccl_info() {
  if (!nccl::library().missing.empty()) return {false, nccl::library().brief};
  return {true,
          "NCCL " + nccl::version_text(nccl::library().number) + " (" + nccl::library().path + ")"};
}

}  // namespace simper::comm
