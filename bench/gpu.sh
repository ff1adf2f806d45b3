#!/usr/bin/env bash
# Everything that needs a GPU, in one run of less than ten minutes: builds, checks that the GPU does what the
# emulator says, runs every op case against float64 and a training run against the CPU device, looks for memory
# errors, and measures ops beside PyTorch and tokens per second. One report: bench/results/<date>-<commit>-<gpu>.md.
#
#   bench/gpu.sh              the run; without a GPU: builds, checks the emulator's side, "skipped: no CUDA device"
#   bench/gpu.sh pack         before that, where there is everything: writes build/bring.tar.xz for a machine that
#                             has nvcc, CMake and a C++ compiler, and neither Node.js, npm packages nor oneDNN
#
# What the run needs, and where it looks:
#   nvcc, cmake       on PATH; nvcc also below CUDA_PATH, CUDA_HOME, /usr/local/cuda
#   node              $NODE, build/bring/bin/node (from build/bring.tar.xz), PATH
#   npm packages      node_modules, build/bring/node_modules
#   compiled code     dist and dist-test (npm run build:ts && npm run build:test), build/bring
#   oneDNN            the system's, build/bring/lib
#   cuBLASLt          native/cuda/cublaslt.h says where; the wheel nvidia-cublas that PyTorch brings will do
#   PyTorch           optional: $PYTHON or python3, for the figures beside ours
#   compute-sanitizer optional, below the CUDA toolkit or on PATH
#
# A step that fails is named at the end, and the exit status is 1; the others run nevertheless. After SECONDS_AT_MOST
# (540) no new step begins.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD
work=$root/build/gpu
bring=$root/build/bring
budget=${SECONDS_AT_MOST:-540}

pack() {
  local node library name
  node=$(command -v "${NODE:-node}") || { echo "bench/gpu.sh: node is missing" >&2; return 1; }
  for name in dist dist-test node_modules; do
    [ -d "$name" ] || { echo "bench/gpu.sh: $name is missing; run: npm ci && npm run build:ts && npm run build:test" >&2; return 1; }
  done
  rm -rf "$bring" && mkdir -p "$bring"/{bin,lib,include,node_modules/@huggingface} || return 1
  cp -L "$node" "$bring/bin/node"
  for name in @huggingface/jinja @huggingface/tokenizers commander js-yaml zod node-addon-api node-api-headers; do
    cp -rL "node_modules/$name" "$bring/node_modules/$name" || return 1
  done
  cp -rL dist dist-test "$bring/"
  cp -rL /usr/include/oneapi "$bring/include/"
  for name in libdnnl.so.2 libdnnl.so.3 libOpenCL.so.1; do
    library=$(ldconfig -p | awk -v name="$name" '$1 == name { print $NF; exit }')
    [ -z "$library" ] || cp -L "$library" "$bring/lib/$name"
  done
  tar -C "$root/build" -cf - bring | xz -T0 -3 > build/bring.tar.xz
  du -h build/bring.tar.xz
}

case ${1:-run} in
  pack) pack; exit ;;
  run) ;;
  *) echo "bench/gpu.sh: expected run or pack, received $1" >&2; exit 2 ;;
esac

mkdir -p "$work"
if [ ! -d "$bring" ] && [ -f build/bring.tar.xz ]; then tar -C build -xf build/bring.tar.xz; fi
for name in node_modules dist dist-test; do
  if [ ! -e "$name" ] && [ -d "$bring/$name" ]; then ln -s "$bring/$name" "$name"; fi
done
node=${NODE:-}
[ -n "$node" ] || { [ -x "$bring/bin/node" ] && node=$bring/bin/node; }
[ -n "$node" ] || node=$(command -v node || true)
python=${PYTHON:-python3}
nvcc=$(command -v "${CUDACXX:-nvcc}" || true)
for prefix in "${CUDA_PATH:-}" "${CUDA_HOME:-}" /usr/local/cuda; do
  [ -n "$nvcc" ] || { [ -n "$prefix" ] && [ -x "$prefix/bin/nvcc" ] && nvcc=$prefix/bin/nvcc; }
done
if [ -d "$bring/lib" ] && ! ldconfig -p | grep -q libdnnl; then
  export LD_LIBRARY_PATH=$bring/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi

failed=()
section=$work/report.md
: > "$section"

# step NAME COMMAND...: runs it, keeps its output, goes on when it fails.
step() {
  local name=$1 log began=$SECONDS status=0
  shift
  log=$work/${name// /-}.log
  if [ "$SECONDS" -gt "$budget" ]; then
    echo "-- $name: skipped: out of time after $SECONDS s"
    printf '\n## %s\n\nskipped: out of time\n' "$name" >> "$section"
    return 1
  fi
  "$@" > "$log" 2>&1 || status=$?
  local verdict="ok"
  if [ "$status" -ne 0 ]; then
    verdict="FAILED ($status)"
    failed+=("$name")
    tail -n 40 "$log"
  fi
  echo "-- $name: $verdict, $((SECONDS - began)) s"
  printf '\n## %s: %s, %d s\n' "$name" "$verdict" "$((SECONDS - began))" >> "$section"
  return "$status"
}

# Puts the log of a step into the report: as it is where it is Markdown (tables), else as text.
quote() {
  local log=$work/${1// /-}.log
  if grep -q '^|' "$log"; then
    { echo; cat "$log"; } >> "$section"
  else
    { echo; echo '```'; tail -n "${2:-20}" "$log"; echo '```'; } >> "$section"
  fi
}

skipped() {
  echo "-- $1: skipped: $2"
  printf '\n## %s\n\nskipped: %s\n' "$1" "$2" >> "$section"
}

finish() {
  if [ ${#failed[@]} -gt 0 ]; then
    printf 'bench/gpu.sh: failed:'
    printf ' %s;' "${failed[@]}"
    printf ' logs in %s\n' "${work#"$root"/}"
    exit 1
  fi
  exit 0
}

# ---- build -------------------------------------------------------------------------------------------------
configure() {
  local options=(-S "$root" -B "$work/cmake" "-DCMAKE_JS_INC=$modules/node-api-headers/include;$modules/node-addon-api")
  command -v ninja > /dev/null && options+=(-G Ninja)
  if [ -n "$nvcc" ]; then
    options+=(-DSIMPER_CUDA=ON "-DCMAKE_CUDA_COMPILER=$nvcc")
  else
    options+=(-DSIMPER_CUDA=OFF)
  fi
  if [ -d "$bring/lib" ] && ! ldconfig -p | grep -q libdnnl; then
    options+=("-DDNNL_INCLUDE_DIR=$bring/include" "-DDNNL_LIBRARY=$(find "$bring/lib" -name 'libdnnl.so*' | head -n 1)")
  fi
  cmake "${options[@]}"
}
compile() { cmake --build "$work/cmake" --parallel "$(nproc)" --target "$@"; }

modules=$root/node_modules
if [ ! -d "$modules/node-addon-api" ]; then
  echo "bench/gpu.sh: node_modules/node-addon-api is missing; run npm ci here, or bench/gpu.sh pack elsewhere and bring build/bring.tar.xz" >&2
  exit 1
fi
step configure configure || finish
step "build for the emulator" compile simper_conformance_emulated || finish
if [ -n "$nvcc" ]; then
  step "build with nvcc" compile simper_native simper_conformance || finish
else
  skipped "build with nvcc" "no nvcc"
fi

# ---- the emulator's side of the conformance test --------------------------------------------------------------
seed=$(date +%s)
emulated_side() {
  local program=$work/cmake/simper_conformance_emulated policy
  echo "seed $seed"
  "$program" run "$work/emulated.bin" "$seed" || return 1
  for policy in reverse random skewed; do
    SIMPER_EMULATOR_POLICY=$policy "$program" run "$work/$policy.bin" "$seed" || return 1
    "$program" compare "$work/emulated.bin" "$work/$policy.bin" || return 1
  done
}
step "conformance of the emulator under every policy" emulated_side

if ! nvidia-smi -L > /dev/null 2>&1; then
  echo "skipped: no CUDA device"
  finish
fi
if [ -z "$nvcc" ]; then
  echo "bench/gpu.sh: a GPU, but no nvcc: nothing can be run on it" >&2
  exit 1
fi

# ---- on the GPU ----------------------------------------------------------------------------------------------
gpu_side() {
  "$work/cmake/simper_conformance" run "$work/gpu.bin" "$seed" &&
    "$work/cmake/simper_conformance" compare "$work/gpu.bin" "$work/emulated.bin"
}
step "conformance of the GPU with the emulator" gpu_side
quote "conformance of the GPU with the emulator"

export SIMPER_NATIVE_BINDING=$work/cmake/simper_native.node
sanitizer=$(command -v compute-sanitizer || true)
[ -n "$sanitizer" ] || { [ -x "$(dirname "$nvcc")/compute-sanitizer" ] && sanitizer=$(dirname "$nvcc")/compute-sanitizer; }
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck initcheck; do
    step "compute-sanitizer $tool on the wrappers" "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "$work/cmake/simper_conformance" run "$work/sanitized.bin" "$seed"
  done
else
  skipped "compute-sanitizer" "not installed"
fi

if [ -z "$node" ] || [ ! -f dist/cli.js ]; then
  skipped "ops, training, benchmarks" "no Node.js or no dist; see the top of bench/gpu.sh"
  failed+=("Node.js is missing")
  finish
fi
step environment "$node" dist/cli.js env
quote environment
export SIMPER_TEST_DEVICES=cuda
if [ -d dist-test ]; then
  step "every op case against float64" "$node" scripts/test.mjs ops/parity ops/gradient ops/attention ops/adamw
  quote "every op case against float64" 10
  step "determinism" "$node" scripts/test.mjs ops/determinism
  quote determinism 10
  step "events, and NCCL between ranks on this GPU" "$node" scripts/test.mjs native/event native/comm-nccl launch/nccl-runs
  quote "events, and NCCL between ranks on this GPU" 10
  step "training against the CPU device" "$node" scripts/test.mjs cuda/training cuda/families
  quote "training against the CPU device" 10
else
  skipped "op cases and training" "no dist-test; run: npm run build:test"
fi
if [ -n "$sanitizer" ]; then
  step "compute-sanitizer memcheck on small ops" "$sanitizer" --tool memcheck --error-exitcode 9 --target-processes all \
    "$node" bench/ops.mjs --device cuda --model tiny
fi

step "attention, products, log-probabilities" "$node" bench/gpu-ops.mjs && quote "attention, products, log-probabilities"
step "the same in PyTorch" "$python" bench/peer/torch_gpu.py && quote "the same in PyTorch"
step "training steps" "$node" bench/gpu.mjs --json "$work/steps.json" && quote "training steps"
for model in 135m 1b 8b; do
  step "ops of $model" "$node" bench/ops.mjs --device cuda --model "$model" && quote "ops of $model"
done

# ---- the report ----------------------------------------------------------------------------------------------
slug=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9' '-')
commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
report=bench/results/$(date +%F)-$commit-${slug%-}.md
mkdir -p bench/results
{
  echo "# bench/gpu.sh, $(date +%F), commit $commit"
  echo
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
  "$nvcc" --version | tail -n 2
  cat "$section"
} > "$report"
echo "wrote $report"
finish
