#!/usr/bin/env bash
# Makes a fresh clone ready to run on Debian 12, Ubuntu 22.04 or newer: system packages that are missing,
# npm packages, TypeScript and the native addon. Quick when there is nothing left to do.
#   bash scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# Runs a command quietly; what it printed is shown only when it fails: npm names the cause at the
# beginning, apt and compilers at the end.
quietly() {
  local log lines
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    mapfile -t lines <"$log"
    rm -f "$log"
    if [ ${#lines[@]} -gt 40 ]; then
      printf '%s\n' "${lines[@]:0:15}" ... "${lines[@]: -24}" >&2
    else
      printf '%s\n' "${lines[@]}" >&2
    fi
    return 1
  fi
  rm -f "$log"
}

# ---- Node ------------------------------------------------------------------------------------------------
command -v node >/dev/null || die "Node.js is missing: install version 20.17 or newer from https://nodejs.org"
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 17) ? 0 : 1)' ||
  die "Node.js $(node --version) is too old: install version 20.17 or newer from https://nodejs.org"
command -v npm >/dev/null || die "npm is missing: install it together with Node.js from https://nodejs.org"

# ---- system packages -------------------------------------------------------------------------------------
missing=()
command -v c++ >/dev/null || command -v g++ >/dev/null || missing+=(g++)
command -v ninja >/dev/null || command -v make >/dev/null || missing+=(make)
command -v cmake >/dev/null || missing+=(cmake)
if command -v c++ >/dev/null || command -v g++ >/dev/null; then
  printf '#if !__has_include(<oneapi/dnnl/dnnl.hpp>)\n#error\n#endif\n' |
    "$(command -v c++ || command -v g++)" -x c++ -E -o /dev/null - 2>/dev/null || missing+=(libdnnl-dev)
elif [ ! -e /usr/include/oneapi/dnnl/dnnl.hpp ]; then
  missing+=(libdnnl-dev)
fi
# Several processes on CPUs: mpirun, and the headers that the addon's MPI part is built with.
command -v mpirun >/dev/null || missing+=(openmpi-bin)
printf '#include <mpi.h>\n' | mpicxx -x c++ -E -o /dev/null - >/dev/null 2>&1 || missing+=(libopenmpi-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null ||
    die "missing: ${missing[*]} (Debian's names). Install them with your package manager, then run this again"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null ||
      die "missing: ${missing[*]}. Run as root: apt-get update && apt-get install -y ${missing[*]}"
    # sudo drops the environment, and Ubuntu's needrestart would then ask a question that nobody sees.
    as_root=(sudo DEBIAN_FRONTEND=noninteractive)
  fi
  say "installing system packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # The lists may be fresh enough: only a failed install is worth the time of an update.
  install=("${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}")
  if ! "${install[@]}" >/dev/null 2>&1; then
    quietly "${as_root[@]}" apt-get update -qq || say "apt-get update failed; trying with the lists there are"
    quietly "${install[@]}" || die "could not install: ${missing[*]}. Try: ${as_root[0]:+sudo }apt-get install -y ${missing[*]}"
  fi
fi

# ---- npm packages ----------------------------------------------------------------------------------------
stamp=node_modules/.simper-native-lock
if ! cmp -s package-lock.json "$stamp"; then
  say "installing npm packages"
  SIMPER_SKIP_BUILD=1 quietly npm ci --no-progress || die "npm ci failed"
  cp package-lock.json "$stamp"
fi

# ---- TypeScript and the addon (incremental) --------------------------------------------------------------
say "building (about a minute the first time)"
quietly npm run --silent build || die "the build failed"
say "ready"
