// Collectives over messages between pairs of ranks. Every rank sends each other rank what that one
// needs, once, so that the bytes are those of the best ring, R being the number of ranks:
//
//   all_gather      my part to each                                      · part
//   reduce_scatter  each its part; I add what comes, in order of ranks   · part
//   all_reduce      both, one after the other                          2 · n / R
//
// Sums are f32 in the order of ranks, whatever comes first. Nothing blocks: messages are polled, so
// that a time-out can say who did not answer, and `abort` and a closed stream are heard.
#include <dlfcn.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "comm/engines.h"
#include "comm/mpi/transport.h"
#include "core/error.h"

namespace simper::comm {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr char kInstall[] =
    "install Open MPI (apt-get install openmpi-bin libopenmpi-dev) and build again: npx "
    "simper-native build";

// simper_mpi.so, opened when it is first asked for and never closed.
struct Library {
  Transport* (*transport)() = nullptr;
  const char* (*version)() = nullptr;
  std::string missing;
};

Library open_library() {
  Library library;
  const char* wanted = std::getenv("SIMPER_MPI");
  fs::path file = wanted && *wanted ? wanted : "";
  if (file.empty()) {
    Dl_info addon;
    static const char kHere = 0;
    if (dladdr(&kHere, &addon) && addon.dli_fname)
      file = fs::path(addon.dli_fname).parent_path() / "simper_mpi.so";
    std::error_code ignored;
    if (!fs::exists(file, ignored)) {
      library.missing = std::string("not part of this build, as there was no MPI; ") + kInstall;
      return library;
    }
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    library.missing = std::string("does not load: ") + dlerror() + "; " + kInstall;
    return library;
  }
  library.transport =
      reinterpret_cast<decltype(library.transport)>(dlsym(handle, "simper_mpi_transport"));
  library.version =
      reinterpret_cast<decltype(library.version)>(dlsym(handle, "simper_mpi_version"));
  if (!library.transport || !library.version)
    library.missing = file.string() + " (SIMPER_MPI) is not our library";
  return library;
}

const Library& library() {
  static const Library opened = open_library();
  return opened;
}

// MPI can be started once in a process, and never again once it has ended.
std::atomic<bool> taken = false;

constexpr const char* kOps[] = {"open",      "all_gather", "reduce_scatter",  "all_reduce",
                                "broadcast", "barrier",    "broadcast_bytes", "close"};
constexpr int kOpCount = sizeof kOps / sizeof kOps[0];

int index_of(const char* op) {
  for (int i = 0; i < kOpCount; ++i) {
    if (std::strcmp(kOps[i], op) == 0) return i;
  }
  return 0;
}

class Mpi final : public Communicator {
 public:
  using Communicator::Communicator;
  const char* engine() const override { return "mpi"; }

 protected:
  void connect(Context& context) override {
    if (taken.exchange(true)) {
      throw CommError(
          "open: MPI is or was in use in this process, expected one communicator per process");
    }
    if (!library().missing.empty()) {
      taken = false;
      throw CommError("open: MPI cannot be used: " + library().missing);
    }
    transport_ = library().transport();
    prctl(PR_SET_TIMERSLACK, 1);  // this thread's pauses are short ones
    context.set_stuck(true);
    const bool open = transport_->open();
    context.set_stuck(false);
    if (!open) throw CommError(std::string("open: ") + transport_->problem());
    set_world(transport_->rank(), transport_->size());
    tags_ = std::min<int64_t>(transport_->largest_tag(), (1 << 27) - 1) / kOpCount;
    // A message's length is an int, and that of a piece bounds what sums need besides.
    message_bytes_ = kMessageBytes;
    if (const char* limit = std::getenv("SIMPER_MPI_MESSAGE_BYTES"))
      message_bytes_ = std::clamp<int64_t>(std::atoll(limit) / 4 * 4, 4, kMessageBytes);
    const int64_t others = std::max(1, size() - 1);
    piece_ = std::clamp<int64_t>(kScratchBytes / (2 * 4 * others), 1024, kLargestPiece);
    piece_ = std::min(piece_, message_bytes_ / 4);
  }

  void gather(Context& context, char* to, const char* from, int64_t part_bytes) override {
    start();
    for_others([&](int peer) { receive(to + peer * part_bytes, part_bytes, peer, 0); });
    for_others([&](int peer) { send(from, part_bytes, peer, 0); });
    char* own = to + rank() * part_bytes;
    if (own != from && part_bytes > 0) std::memcpy(own, from, static_cast<size_t>(part_bytes));
    wait(context, 0);
  }

  void scatter(Context& context, float* to, const float* from, int64_t part) override {
    start();
    bounds_.resize(static_cast<size_t>(size()) + 1);
    for (int r = 0; r <= size(); ++r) bounds_[static_cast<size_t>(r)] = r * part;
    sum_parts(context, to, from);
  }

  // Rank r adds up part r, [r n / R, (r+1) n / R), and gives it to the others.
  void reduce(Context& context, float* x, int64_t count) override {
    if (size() == 1) return;
    start();
    bounds_.resize(static_cast<size_t>(size()) + 1);
    for (int r = 0; r <= size(); ++r) bounds_[static_cast<size_t>(r)] = count * r / size();
    sum_parts(context, x + begin(rank()), x);
    char* bytes = reinterpret_cast<char*>(x);
    for_others([&](int peer) { receive(bytes + 4 * begin(peer), 4 * part(peer), peer, 0); });
    for_others([&](int peer) { send(bytes + 4 * begin(rank()), 4 * part(rank()), peer, 0); });
    wait(context, 0);
  }

  void send_all(Context& context, char* bytes, int64_t count, int root, bool) override {
    start();
    if (rank() == root) {
      for_others([&](int peer) { send(bytes, count, peer, 0); });
    } else {
      receive(bytes, count, root, 0);
    }
    wait(context, 0);
  }

  void meet(Context& context) override {
    start();
    for_others([&](int peer) { begun(transport_->receive(&token_, 0, peer, tag_, 0)); });
    for_others([&](int peer) { begun(transport_->send(&token_, 0, peer, tag_, 0)); });
    wait(context, 0);
  }

  void disconnect(Context& context) override {
    ++number_;
    meet(context);  // MPI_Finalize waits for all without a bound: come there together
    context.set_stuck(true);
    const bool closed = transport_->close();
    context.set_stuck(false);
    if (!closed) fail(transport_->problem());
  }

 private:
  static constexpr int64_t kMessageBytes = int64_t{1} << 30;
  static constexpr int64_t kScratchBytes = int64_t{16} << 20;  // about, for sums
  static constexpr int64_t kLargestPiece = int64_t{1} << 18;   // elements

  void start() {
    started_ = Clock::now();
    tag_ = static_cast<int>(number_ % tags_) * kOpCount + index_of(op_);
  }

  // From the next rank on, so that not all send to the same one at once.
  template <class F>
  void for_others(F&& f) {
    for (int i = 1; i < size(); ++i) f((rank() + i) % size());
  }

  int64_t begin(int r) const { return bounds_[static_cast<size_t>(r)]; }
  int64_t part(int r) const { return begin(r + 1) - begin(r); }

  void begun(bool started) {
    if (!started) blame();
  }

  void send(const char* data, int64_t bytes, int peer, int group) {
    for (int64_t at = 0; at < bytes; at += message_bytes_) {
      begun(transport_->send(data + at, std::min(message_bytes_, bytes - at), peer, tag_, group));
    }
    sent(bytes);
  }

  void receive(char* data, int64_t bytes, int peer, int group) {
    for (int64_t at = 0; at < bytes; at += message_bytes_) {
      begun(
          transport_->receive(data + at, std::min(message_bytes_, bytes - at), peer, tag_, group));
    }
  }

  // to = sum over ranks of my part of their `from`, piece by piece: while one is added up, the next
  // is under way. What I send of piece k is piece k of the others' parts.
  void sum_parts(Context& context, float* to, const float* from) {
    const int64_t own = part(rank());
    int64_t longest = 0;
    for (int r = 0; r < size(); ++r) longest = std::max(longest, part(r));
    const int64_t others = size() - 1, pieces = (longest + piece_ - 1) / piece_;
    const int64_t wanted = 2 * others * std::min(piece_, longest);
    if (static_cast<int64_t>(scratch_.size()) < wanted)
      scratch_.resize(static_cast<size_t>(wanted));
    sources_.resize(static_cast<size_t>(size()));
    const auto length = [&](int r, int64_t k) {
      return std::clamp<int64_t>(part(r) - k * piece_, 0, piece_);
    };
    const auto slot = [&](int peer, int64_t k) {
      const int64_t index = (k % 2) * others + (peer < rank() ? peer : peer - 1);
      return scratch_.data() + index * std::min(piece_, longest);
    };
    const auto exchange = [&](int64_t k) {
      const int group = static_cast<int>(k % 2);
      for_others([&](int peer) {
        receive(reinterpret_cast<char*>(slot(peer, k)), 4 * length(rank(), k), peer, group);
      });
      for_others([&](int peer) {
        send(reinterpret_cast<const char*>(from + begin(peer) + k * piece_), 4 * length(peer, k),
             peer, group);
      });
    };
    if (pieces > 0) exchange(0);
    for (int64_t k = 0; k < pieces; ++k) {
      if (k + 1 < pieces) exchange(k + 1);
      wait(context, static_cast<int>(k % 2));
      const int64_t at = k * piece_;
      if (at >= own) continue;
      for (int r = 0; r < size(); ++r) {
        sources_[static_cast<size_t>(r)] = r == rank() ? from + begin(r) + at : slot(r, k);
      }
      add_up(to + at, length(rank(), k));
    }
  }

  // to = sources_[0] + sources_[1] + ..., in this order; `to` may be one of them.
  void add_up(float* to, int64_t count) {
    constexpr int64_t kBlock = 2048;  // stays in the nearest cache
    float sum[kBlock];
    for (int64_t at = 0; at < count; at += kBlock) {
      const int64_t length = std::min(kBlock, count - at);
      std::memcpy(sum, sources_[0] + at, static_cast<size_t>(length) * 4);
      for (size_t r = 1; r < sources_.size(); ++r) {
        const float* source = sources_[r] + at;
        for (int64_t i = 0; i < length; ++i) sum[i] += source[i];
      }
      std::memcpy(to + at, sum, static_cast<size_t>(length) * 4);
    }
  }

  // Until all messages of the group are done. A message that is on its way takes microseconds, a
  // rank that still computes milliseconds: the pauses grow with the wait, so that it takes its time
  // from nobody.
  void wait(Context& context, int group) {
    const auto waiting_since = Clock::now();
    for (int polls = 0;; ++polls) {
      const int open = transport_->poll(group);
      if (open == 0) return;
      if (open < 0) blame();
      if (polls < 20) {
        sched_yield();
        continue;
      }
      check_alive(context);
      const auto now = Clock::now();
      const std::chrono::duration<double> taken = now - started_;
      if (taken.count() > options_.timeout_seconds) time_out();
      const auto waited = now - waiting_since;
      using std::chrono::microseconds;
      std::this_thread::sleep_for(
          std::clamp<Clock::duration>(waited / 8, microseconds(10), microseconds(1000)));
    }
  }

  [[noreturn]] void blame() {
    const int peer = transport_->culprit();
    const std::string problem = transport_->problem();
    if (peer < 0) fail(problem);
    fail("rank " + std::to_string(peer) + " " + problem + ", or is in another operation" +
         elsewhere({peer}));
  }

  [[noreturn]] void time_out() {
    std::vector<int> silent;
    for (int peer = 0; peer < size(); ++peer) {
      if (transport_->waits_for(peer)) silent.push_back(peer);
    }
    std::string names = silent.size() == 1 ? "rank " : "ranks ";
    for (size_t i = 0; i < silent.size(); ++i)
      names += (i > 0 ? ", " : "") + std::to_string(silent[i]);
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%g s", options_.timeout_seconds);
    fail("no answer from " + names + " within " + seconds + elsewhere(silent));
  }

  // "; rank 1 is at op 7, all_reduce" where a rank sends what nobody here receives.
  std::string elsewhere(const std::vector<int>& peers) {
    std::string text;
    for (const int peer : peers) {
      const int tag = transport_->unexpected(peer);
      if (tag < 0 || tag == tag_) continue;
      text += "; rank " + std::to_string(peer) + " is at op " + std::to_string(tag / kOpCount) +
              ", " + kOps[tag % kOpCount];
    }
    return text;
  }

  Transport* transport_ = nullptr;
  int64_t tags_ = 1;
  int tag_ = 0;
  int64_t message_bytes_ = 0, piece_ = 0;
  char token_ = 0;
  Clock::time_point started_;
  std::vector<int64_t> bounds_;  // of the parts of a sum, in elements
  std::vector<float> scratch_;
  std::vector<const float*> sources_;
};

}  // namespace

std::shared_ptr<Communicator> make_mpi(Options options, bool host_memory) {
  if (!host_memory) {
    throw CommError(
        "open: the engine mpi moves bytes of the machine's memory, this device has its own; "
        "expected the engine nccl");
  }
  return std::make_shared<Mpi>(std::move(options));
}

EngineInfo mpi_info() {
  const Library& opened = library();
  if (!opened.missing.empty()) return {false, opened.missing};
  return {true, opened.version()};
}

}  // namespace simper::comm
