// Matrix products of the emulated device: the CPU's, in place of cuBLASLt's.
#include "emulator/emulated_context.h"
#include "ops/ops.h"

namespace simper::cuda {
namespace {

cpu::CpuContext& cpu_of(Context& context) {
  return static_cast<emulator::EmulatedContext&>(context).cpu;
}

}  // namespace

void matmul(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  cpu::matmul(cpu_of(context), c, a, b, form);
}

void matmul_add(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  cpu::matmul_add(cpu_of(context), c, a, b, form);
}

}  // namespace simper::cuda
