#!/usr/bin/env bash
# Runs the CUDA kernels on the emulated device under what can see their mistakes: every schedule with several seeds,
# AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer, to which only a kernel's own barriers order
# its threads. The cases are those of test/ops, replayed without Node (native/emulator/replay.cc). The compiled tests
# must be there (npm run build:ts && npm run build:test).
#   scripts/sanitize-cuda.sh [--short]     --short: fewer cases, for a gate that has other things to do
set -euo pipefail
cd "$(dirname "$0")/.."

short=false
case "${1-}" in
  --short) short=true ;;
  "") ;;
  *) echo "Usage: scripts/sanitize-cuda.sh [--short]" >&2; exit 2 ;;
esac

build=build/emulated
SIMPER_CMAKE_OPTION_SIMPER_EMULATOR=ON node scripts/build.mjs --out "$build"
cmake --build "$build" --target simper_replay simper_replay_memory simper_replay_races

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cases() { # cases NAME [options of replay-cases.mjs]
  node scripts/replay-cases.mjs "$work/$1" "${@:2}"
}
replay() { # replay TITLE RUNNER FILE [options]
  echo "== $1"
  "$build/$2" "${@:4}" "$work/$3"
}

# The stack of a report needs the runner's own symbols only. Leaks: the fibers of a launch that failed are dropped.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:report_signal_unsafe=0

cases small --small
if $short; then
  replay "address, undefined behaviour" simper_replay_memory small --policies random
else
  cases all
  replay "four schedules, five seeds" simper_replay all --seeds 5
  replay "address, undefined behaviour" simper_replay_memory all --policies random
fi
replay "races" simper_replay_races small --policies random,skewed
echo "== the runner's own tests"
SIMPER_REPLAY=$PWD/$build/simper_replay node scripts/test.mjs cuda/replay
