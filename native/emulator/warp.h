#pragma once
#include "emulator/runtime.h"

namespace simper::simt {

// The work of a collective, for all 32 lanes at once.
void perform(Collective kind, Exchange* const (&lanes)[32], Counters& counters);

}  // namespace simper::simt
