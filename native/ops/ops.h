#pragma once
#include "core/device.h"
#include "core/tensor.h"

namespace simper {

// The functions of one device, in the order of ops.def. A device with a hole does not link.
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

}  // namespace simper
