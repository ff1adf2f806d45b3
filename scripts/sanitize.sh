#!/usr/bin/env bash
# Runs the tests of ops and native code on an addon built with AddressSanitizer and UndefinedBehaviorSanitizer
# (build/sanitize). A report of either ends a test file with an error. The compiled tests must be there
# (npm run build:ts && npm run build:test).
#   scripts/sanitize.sh [part of a test's path ...]
set -euo pipefail
cd "$(dirname "$0")/.."

SIMPER_CMAKE_OPTION_SIMPER_SANITIZE=ON node scripts/build.mjs --out build/sanitize

# Node itself is not instrumented, so the runtime has to come first; libstdc++ too, for the runtime to find
# its exceptions.
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' build/sanitize/CMakeCache.txt)
runtime() {
  local file
  file=$("$compiler" -print-file-name="$1")
  [[ $file == */* ]] || { echo "scripts/sanitize.sh: $compiler has no $1; install its sanitizer runtime" >&2; exit 1; }
  echo "$file"
}
asan=$(runtime libasan.so)
ubsan=$(runtime libubsan.so)
cxx=$(runtime libstdc++.so)

export SIMPER_NATIVE_BINDING=$PWD/build/sanitize/Release/simper_native.node
# Leaks: Node never frees much of what it holds at exit. The stack of a report needs no symbolizer's colours.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:detect_stack_use_after_return=0
export UBSAN_OPTIONS=print_stacktrace=1
export LD_PRELOAD="$asan $ubsan $cxx"
# ops/determinism runs the cases of ops/parity again and again: no new code for half of the time.
[ $# -gt 0 ] || set -- ops/adamw ops/attention ops/contract ops/gradient ops/harness ops/parity native/
exec node scripts/test.mjs "$@"
