// simper_replay: runs the op cases of a file (replay_file.h) on the CPU or the emulated device and
// judges them as test/ops/harness does, without Node: ThreadSanitizer cannot look into Node. Under
// every schedule the outputs have to have the bits of the first one.
//   simper_replay [options] FILE
// Exit code: 0 all is well, 1 a case failed, 2 the call or the file is wrong; sanitizers and the
// emulator have codes of their own.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <new>
#include <string_view>
#include <tuple>

#include "core/device.h"
#include "core/error.h"
#include "core/stream.h"
#include "emulator/replay_file.h"
#include "emulator/replay_judge.h"
#include "emulator/runtime.h"
#include "ops/ops.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace simper::replay {
namespace {

constexpr const char* kUsage =
    "Usage: simper_replay [options] FILE\n"
    "\n"
    "  --device NAME      cpu or emulated (default: emulated)\n"
    "  --policies A,B,..  of the emulator: sequential, reverse, random, skewed (default: all of "
    "them)\n"
    "  --seeds N          runs under each policy, with the seeds 1 to N (default: 1)\n"
    "  --op NAME          cases of this op only\n"
    "  --stop             end at the first failure\n"
    "  --verbose          a line with the time of each case\n";

// ---- calling an op by its name ------------------------------------------------------------------

using Call = std::function<void(const OpTable&, Stream&, const Case&)>;

template <class T>
T value_of(const Case& one, size_t position) {
  const Argument& argument = one.arguments[position];
  if (argument.is_tensor != std::is_same_v<T, Tensor>) {
    throw ContractError(one.op + ": argument " + argument.name + " is a " +
                        (argument.is_tensor ? "tensor" : "number"));
  }
  if constexpr (std::is_same_v<T, Tensor>) {
    return argument.view;
  } else {
    return static_cast<T>(argument.number);
  }
}

template <>
MatmulForm value_of<MatmulForm>(const Case& one, size_t position) {
  return static_cast<MatmulForm>(value_of<int64_t>(one, position));
}

template <class... Args, size_t... I>
std::tuple<Args...> values_of_all(const Case& one, std::index_sequence<I...>) {
  return {value_of<Args>(one, I)...};
}

template <class... Args>
Call call_of(const char* name, void (*OpTable::*member)(Context&, Args...),
             void (*check)(Args...)) {
  return [=](const OpTable& table, Stream& stream, const Case& one) {
    if (one.arguments.size() != sizeof...(Args)) {
      throw ContractError(one.op + " takes " + std::to_string(sizeof...(Args)) +
                          " arguments, the case has " + std::to_string(one.arguments.size()));
    }
    const auto arguments = values_of_all<Args...>(one, std::index_sequence_for<Args...>());
    std::apply(check, arguments);
    stream.enqueue(name, Command([function = table.*member, arguments](Context& context) {
                     std::apply([&](const Args&... a) { function(context, a...); }, arguments);
                   }));
  };
}

const std::map<std::string_view, Call>& calls() {
  static const std::map<std::string_view, Call> calls = {
#define OP(name, ...) {#name, call_of(#name, &OpTable::name, &contracts::name)},
#include "ops/ops.def"
#undef OP
  };
  return calls;
}

// ---- memory -------------------------------------------------------------------------------------

// One argument's memory, aligned as an arena aligns. Under AddressSanitizer its guards and row gaps
// may not even be read while the op runs.
class Memory {
 public:
  explicit Memory(const std::vector<std::byte>& before)
      : bytes_(before.size()),
        data_(static_cast<std::byte*>(::operator new(bytes_ + 1, kAlignment))) {}
  ~Memory() {
    open();
    ::operator delete(data_, kAlignment);
  }
  Memory(const Memory&) = delete;

  std::byte* data() { return data_; }
  void restore(const std::vector<std::byte>& before) {
    open();
    if (bytes_ > 0) std::memcpy(data_, before.data(), bytes_);
  }
  void open() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(data_, bytes_);
#endif
  }
  void close() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(data_, bytes_);
#endif
  }
  void open_rows([[maybe_unused]] const Tensor& view) {
#if defined(__SANITIZE_ADDRESS__)
    const int64_t size = size_of(view.dtype);
    for (int64_t t = 0; t < view.rows(); ++t) {
      const auto* row = static_cast<std::byte*>(view.data) + t * view.row_stride * size;
      __asan_unpoison_memory_region(row, static_cast<size_t>(view.row_size() * size));
    }
#endif
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  size_t bytes_;
  std::byte* data_;
};

// ---- running ------------------------------------------------------------------------------------

// What runs at the moment, for the report of a sanitizer that ends the process.
std::string running;

constexpr std::pair<std::string_view, simt::Policy> kPolicies[] = {
    {"sequential", simt::Policy::sequential},
    {"reverse", simt::Policy::reverse},
    {"random", simt::Policy::random},
    {"skewed", simt::Policy::skewed},
};

struct Schedule {
  std::string policy;
  simt::Settings settings;
  std::string text() const {
    return "policy " + policy + ", seed " + std::to_string(settings.seed);
  }
};

struct Options {
  std::string file, device = "emulated", op;
  std::vector<Schedule> schedules;
  bool stop = false, verbose = false;
};

class Runner {
 public:
  explicit Runner(const Options& options)
      : schedules_(options.schedules),
        device_(options.device == "cpu" ? open_cpu_device(1) : open_emulated_device(1)),
        stream_(device_->open_stream(true)) {}

  // What is wrong with the case, one line each.
  std::vector<std::string> run(Case& one) {
    const auto call = calls().find(one.op);
    if (call == calls().end()) return {"there is no such op"};
    std::vector<std::unique_ptr<Memory>> memory(one.arguments.size());
    for (size_t i = 0; i < memory.size(); ++i) {
      Argument& argument = one.arguments[i];
      if (argument.is_tensor && argument.owner == i) {
        memory[i] = std::make_unique<Memory>(argument.before);
      }
    }
    for (Argument& argument : one.arguments) {
      if (!argument.is_tensor) continue;
      argument.view.data =
          memory[argument.owner]->data() + argument.offset * size_of(argument.view.dtype);
    }
    std::vector<std::string> found;
    std::vector<std::vector<std::byte>> first(memory.size());
    for (const Schedule& schedule : schedules_) {
      running = one.op + " [" + one.name + "] under " + schedule.text();
      // Schedules belong to the thread that launches: the stream's.
      stream_->enqueue("configure", Command([settings = schedule.settings](Context&) {
                         simt::configure(settings);
                       }));
      const auto note = [&](const std::string& text) {
        found.push_back(text + " (" + schedule.text() + ")");
      };
      if (auto error = execute(call->second, one, memory)) {
        note(*error);
      } else {
        judge(one, memory, first, note);
      }
      ++runs_;
      if (!found.empty()) break;  // the other schedules would say the same again
    }
    return found;
  }
  int64_t runs() const { return runs_; }

 private:
  std::optional<std::string> execute(const Call& call, Case& one,
                                     std::vector<std::unique_ptr<Memory>>& memory) {
    for (size_t i = 0; i < memory.size(); ++i) {
      if (!memory[i]) continue;
      memory[i]->restore(one.arguments[i].before);
      memory[i]->close();
    }
    for (const Argument& argument : one.arguments) {
      if (argument.is_tensor) memory[argument.owner]->open_rows(argument.view);
    }
    std::optional<std::string> error;
    const auto keep = [&](std::exception_ptr thrown) {
      try {
        if (thrown && !error) std::rethrow_exception(thrown);
      } catch (const std::exception& e) {
        error = e.what();
      }
    };
    try {
      call(device_->ops(), *stream_, one);
    } catch (const std::exception&) {
      keep(std::current_exception());
    }
    std::promise<std::exception_ptr> done;
    stream_->finish([&](std::exception_ptr thrown) { done.set_value(thrown); });
    keep(done.get_future().get());
    for (auto& block : memory) {
      if (block) block->open();
    }
    return error;
  }

  template <class Note>
  void judge(const Case& one, std::vector<std::unique_ptr<Memory>>& memory,
             std::vector<std::vector<std::byte>>& first, Note&& note) {
    const bool is_first = first == std::vector<std::vector<std::byte>>(memory.size());
    for (uint32_t i = 0; i < memory.size(); ++i) {
      if (!memory[i]) continue;
      const Argument& argument = one.arguments[i];
      if (auto text = trespass(one, i, memory[i]->data())) note(argument.name + ": " + *text);
    }
    for (const Argument& argument : one.arguments) {
      if (!argument.compared()) continue;
      const std::byte* after = memory[argument.owner]->data();
      const auto text = is_first ? mismatch(argument, values_of(argument, after))
                                 : difference(argument, first[argument.owner].data(), after);
      if (text) note(argument.name + ": " + *text);
    }
    if (!is_first) return;
    for (size_t i = 0; i < memory.size(); ++i) {
      if (!memory[i]) continue;
      first[i].assign(memory[i]->data(), memory[i]->data() + one.arguments[i].before.size());
    }
  }

  std::vector<Schedule> schedules_;
  std::shared_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  int64_t runs_ = 0;
};

// ---- the command --------------------------------------------------------------------------------

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

int positive(const std::string& name, const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && *end == '\0' && number >= 1) return number;
  throw UsageError(name + " is " + text + ", expected a number from 1 on");
}

simt::Policy policy_of(const std::string& name) {
  for (const auto& [known, policy] : kPolicies) {
    if (known == name) return policy;
  }
  throw UsageError("there is no policy " + name);
}

Options parse(const std::vector<std::string>& words) {
  Options options;
  std::vector<std::string> policies;
  for (const auto& [name, policy] : kPolicies) policies.emplace_back(name);
  int seeds = 1;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == words.size()) throw UsageError(word + " needs a value");
      return words[++i];
    };
    if (word == "--stop") {
      options.stop = true;
    } else if (word == "--verbose") {
      options.verbose = true;
    } else if (word == "--device") {
      options.device = value();
    } else if (word == "--op") {
      options.op = value();
    } else if (word == "--policies") {
      policies = split(value());
    } else if (word == "--seeds") {
      seeds = positive(word, value());
    } else if (word.starts_with("--")) {
      throw UsageError(word + " is no option");
    } else if (!options.file.empty()) {
      throw UsageError("one file, received " + options.file + " and " + word);
    } else {
      options.file = word;
    }
  }
  if (options.file.empty()) throw UsageError("no file");
  if (options.device != "cpu" && options.device != "emulated") {
    throw UsageError("--device is " + options.device + ", expected cpu or emulated");
  }
  for (const std::string& name : policies) {
    const simt::Policy policy = policy_of(name);
    for (int seed = 1; seed <= seeds; ++seed) {
      options.schedules.push_back({name, {policy, static_cast<uint64_t>(seed)}});
    }
  }
  return options;
}

int replay(const Options& options) {
  File file(options.file);
  Runner runner(options);
  int cases = 0, failed = 0;
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds_since = [](auto start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (Case one; file.next(one);) {
    if (!options.op.empty() && one.op != options.op) continue;
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::string> found = runner.run(one);
    ++cases;
    failed += !found.empty();
    for (const std::string& line : found) {
      std::printf("FAILED %s [%s] %s\n", one.op.c_str(), one.name.c_str(), line.c_str());
    }
    if (options.verbose) {
      std::printf("%8.3f s  %s [%s]\n", seconds_since(start), one.op.c_str(), one.name.c_str());
    }
    std::fflush(stdout);
    if (failed && options.stop) break;
  }
  std::printf("simper_replay: %s: %d cases, %lld runs, %d failed, %.1f s\n", options.device.c_str(),
              cases, static_cast<long long>(runner.runs()), failed, seconds_since(begin));
  if (cases == 0) throw FileError(options.file + ": no case matches");
  return failed ? 1 : 0;
}

int run(const std::vector<std::string>& words) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  __sanitizer_set_death_callback([] { std::fprintf(stderr, "FAILED %s\n", running.c_str()); });
#endif
  try {
    return replay(parse(words));
  } catch (const UsageError& error) {
    std::fprintf(stderr, "simper_replay: %s\n\n%s", error.what(), kUsage);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "simper_replay: %s\n", error.what());
  }
  return 2;
}

}  // namespace
}  // namespace simper::replay

int main(int count, char** words) {
  return simper::replay::run({words + 1, words + count});
}
