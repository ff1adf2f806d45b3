#pragma once
#include <string>
#include <type_traits>

#include "core/error.h"
#include "cuda/context.h"
#include "cuda/simt/simt.h"
#include "ops/ops.h"

namespace simper::cuda {

inline CudaContext& cuda_of(Context& context) {
  return static_cast<CudaContext&>(context);
}

// Calls f with a null pointer of the tensor's element type: `with_dtype(x.dtype, [&]<class T>(T*)
// {...})`.
template <class F>
void with_dtype(DType dtype, F&& f) {
  if (dtype == DType::f32) return f(static_cast<float*>(nullptr));
  if (dtype == DType::bf16) return f(static_cast<bf16*>(nullptr));
  throw ContractError(std::string("dtype ") + name_of(dtype) +
                      " reached a kernel that takes f32 or bf16");
}

template <int N>
using Width = std::integral_constant<int, N>;

// Calls f with the number of elements that move at once: `with_width<4>(wide, [&]<int N>(Width<N>)
// {...})` calls it with 4 where `wide`, else with 1.
template <int kWide, class F>
void with_width(bool wide, F&& f) {
  if (wide) return f(Width<kWide>{});
  f(Width<1>{});
}

}  // namespace simper::cuda
