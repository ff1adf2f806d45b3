#pragma once
#include "cpu/attention_amx.h"
#include "cpu/attention_amx_gradient.h"
#include "cpu/attention_gradient.h"
#include "cpu/attention_online.h"
#include "cpu/parallel.h"

// Which arithmetic attention runs on. f32 inputs and most CPUs take the f32 micro-kernel; bf16
// inputs take AMX where the compiler targets it and the machine has it.
namespace simper::cpu::attention {

struct F32Unit {
  using Forward = F32Forward;
  using Gradient = F32Gradient;
};

#ifdef SIMPER_ATTENTION_AMX
struct AmxUnit {
  using Forward = amx::Forward;
  using Gradient = amx::Gradient;
};
#endif

// Calls f with a null pointer of the element type and the unit, as with_dtype does.
template <class F>
void with_unit(DType dtype, F&& f) {
#ifdef SIMPER_ATTENTION_AMX
  if (dtype == DType::bf16 && amx_available()) return f(static_cast<bf16*>(nullptr), AmxUnit{});
#endif
  with_dtype(dtype, [&]<class E>(E* element) { f(element, F32Unit{}); });
}

}  // namespace simper::cpu::attention
