#include "cpu/attention_amx.h"

#ifdef SIMPER_ATTENTION_AMX
#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace simper::cpu::attention {

// The 8 KiB of tile registers are saved at a context switch only for processes that asked for them.
// Linux before 5.16, a CPU without the unit or too small a signal stack refuses, and attention
// stays on f32 tiles.
bool amx_available() {
#ifdef SIMPER_ATTENTION_AMX
  constexpr long kTileData = 18;  // the number of the state component
  static const bool available = __builtin_cpu_supports("amx-bf16") != 0 &&
                                syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, kTileData) == 0;
  return available;
#else
  return false;
#endif
}

}  // namespace simper::cpu::attention
