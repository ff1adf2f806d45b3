// The face of the emulator: what simt_host.h calls, on the scheduler of the calling thread.
#include "emulator/runtime.h"

#include <cstdlib>
#include <string>

#include "core/error.h"
#include "emulator/scheduler.h"

namespace simper::simt {

Settings settings_from_environment() {
  Settings settings;
  if (const char* value = std::getenv("SIMPER_EMULATOR_POLICY"); value && *value) {
    constexpr const char* kNames[] = {"sequential", "reverse", "random", "skewed"};
    int found = -1;
    for (int i = 0; i < 4; ++i) {
      if (std::string_view(value) == kNames[i]) found = i;
    }
    if (found < 0)
      throw DeviceError("SIMPER_EMULATOR_POLICY is \"" + std::string(value) +
                        "\", expected sequential, reverse, random or skewed");
    settings.policy = static_cast<Policy>(found);
  }
  if (const char* value = std::getenv("SIMPER_EMULATOR_SEED"); value && *value) {
    char* end;
    settings.seed = std::strtoull(value, &end, 10);
    if (*end != '\0')
      throw DeviceError("SIMPER_EMULATOR_SEED is \"" + std::string(value) +
                        "\", expected a whole number");
  }
  return settings;
}

void configure(const Settings& settings) {
  scheduler().configure(settings);
}
Counters& counters() {
  return scheduler().counters();
}
void run(const Launch& launch) {
  scheduler().run(launch);
}

void fail(std::string_view message) {
  scheduler().fail(message);
}
void wait_at_barrier(int id, unsigned expected) {
  scheduler().barrier(id, expected);
}
void meet(Collective kind, Exchange& exchange) {
  scheduler().meet(kind, exchange);
}

void* take_shared(size_t& offset, size_t bytes) {
  SharedArena& shared = scheduler().shared();
  if (void* array = shared.take(offset, bytes)) return array;
  fail("an array of " + std::to_string(bytes) + " bytes does not fit into what is left of the " +
       std::to_string(shared.bytes()) + " bytes of shared memory that the launch asked for");
}
bool is_shared(const void* p, size_t bytes) {
  return scheduler().shared().contains(p, bytes);
}

void push_copy(const Copy& copy, bool reads_global) {
  if (!scheduler().copies().push(copy)) fail("too many cp.async in flight: is a wait missing?");
  if (reads_global) counters().copied_bytes += 16;
}
void commit_copies() {
  if (!scheduler().copies().commit()) fail("too many groups of cp.async in flight");
}
bool pop_copy(int groups, Copy& copy) {
  return scheduler().copies().pop(groups, copy);
}

}  // namespace simper::simt
