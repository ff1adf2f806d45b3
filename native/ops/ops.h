#pragma once
#include "core/device.h"
#include "core/tensor.h"

// Hidden, so that an op without an implementation fails the link instead of the first call.
#pragma GCC visibility push(hidden)

namespace simper {

// The functions of one device, in the order of ops.def.
struct OpTable {
#define OP(name, ...) void (*name)(Context&, __VA_ARGS__);
#include "ops/ops.def"
#undef OP
};

// Shape and dtype rules, the same for every device; each throws ContractError.
namespace contracts {
#define OP(name, ...) void name(__VA_ARGS__);
#include "ops/ops.def"
#undef OP
}  // namespace contracts

namespace cpu {
#define OP(name, ...) void name(Context&, __VA_ARGS__);
#include "ops/ops.def"
#undef OP
}  // namespace cpu

namespace cuda {
#define OP(name, ...) void name(Context&, __VA_ARGS__);
#include "ops/ops.def"
#undef OP
}  // namespace cuda

}  // namespace simper

#pragma GCC visibility pop
