// attention_forward and attention_backward: checks and arranges the arguments, plans on the device,
// picks the kernels. Nothing here waits for the device.
//
//   rows -> tiles (attention_plan.cu) -> bf16 with D = 64, 96, 128, no window: tensor cores
//                                     -> the rest: attention_generic.cu
//
//   The tensor-core kernels copy 16 bytes at a time. Inputs that do not lie that way, as a window
//   may, are copied once to rows that do: 2 bytes read and written per element, about 1 % of the op
//   at 1000 visible keys. Outputs that do not are written by elements.
#include "cuda/attention.h"

#include <cmath>

#include "core/error.h"

namespace simper::cuda {
namespace attention {
namespace {

// Eight elements per thread: read one by one, written as 16 bytes.
SIMT_KERNEL(256)
align_rows_kernel(Rows<bf16> to, Rows<const bf16> from, unsigned parts, int64_t columns) {
  const Piece at = piece<8>(parts);
  if (at.column >= columns) return;
  simt::Pack<bf16, 8> pack;
#pragma unroll
  for (int i = 0; i < 8; ++i) pack.element[i] = from[at.row][at.column + i];
  simt::store_pack(to[at.row] + at.column, pack);
}

// The rows of x, aligned to 16 bytes: its own or a copy in the scratch slot.
Rows<const bf16> aligned_rows(CudaContext& cuda, const Tensor& x, int slot) {
  if (moves_16(x)) return rows_of<const bf16>(x);
  const int64_t columns = x.row_size();
  const Rows<bf16> copy{cuda.scratch<bf16>(x.rows() * columns, slot), columns};
  const Cover cover(x.rows(), columns, 8);
  simt::launch<align_rows_kernel>(cuda, cover.grid, cover.threads, 0, copy, rows_of<const bf16>(x),
                                  cover.parts, columns);
  return {copy.data, copy.stride};
}

Heads heads_of(const char* op, const Tensor& qkv, int64_t heads, int64_t kv_heads) {
  const int64_t D = qkv.row_size() / (heads + 2 * kv_heads);
  if (D > kMaxHeadDim) {
    throw ContractError(std::string(op) + ": qkv has a head dim of " + std::to_string(D) +
                        ", expected at most " + std::to_string(kMaxHeadDim) +
                        " on the CUDA device");
  }
  return {static_cast<int32_t>(heads), static_cast<int32_t>(kv_heads), static_cast<int32_t>(D),
          1.0f / std::sqrt(static_cast<float>(D))};
}

// No key is 2·T rows or more behind a row: such a window hides none.
int32_t window_of(int64_t window, int64_t T) {
  return window == 0 || window >= 2 * T ? kNoWindow : static_cast<int32_t>(window);
}

}  // namespace
}  // namespace attention

void attention_forward(Context& context, Tensor o, Tensor lse, Tensor qkv, Tensor segments,
                       int64_t heads, int64_t kv_heads, int64_t window) {
  using namespace attention;
  CudaContext& cuda = cuda_of(context);
  const Heads shape = heads_of("attention_forward", qkv, heads, kv_heads);
  const int64_t T = qkv.rows();
  const int32_t seen = window_of(window, T);
  const bool tensor_cores = seen == kNoWindow && has_tensor_core_kernel(qkv.dtype, shape.dim);
  const int rows = tensor_cores ? forward_bf16_rows(T, segments.rows()) : generic_rows(shape.dim);
  const Plan plan =
      plan_work(cuda, "attention_forward", segments, T, rows, 0, seen, Outputs{o, lse});
  if (tensor_cores) {
    forward_bf16(cuda, {plan, shape, rows_of<bf16>(o), rows_of<float>(lse),
                        aligned_rows(cuda, qkv, kFirstFreeSlot), moves_16(o)});
    return;
  }
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    forward_generic<E>(
        cuda, {plan, shape, rows_of<E>(o), rows_of<float>(lse), rows_of<const E>(qkv), false});
  });
}

void attention_backward(Context& context, Tensor d_qkv, Tensor delta, Tensor d_o, Tensor o,
                        Tensor lse, Tensor qkv, Tensor segments, int64_t heads, int64_t kv_heads,
                        int64_t window) {
  using namespace attention;
  CudaContext& cuda = cuda_of(context);
  const Heads shape = heads_of("attention_backward", qkv, heads, kv_heads);
  const int32_t seen = window_of(window, qkv.rows());
  const bool tensor_cores = seen == kNoWindow && has_tensor_core_kernel(qkv.dtype, shape.dim);
  const int rows = tensor_cores ? kBackwardRows : generic_rows(shape.dim);
  const Plan plan = plan_work(cuda, "attention_backward", segments, qkv.rows(), rows, rows, seen,
                              Outputs{d_qkv, delta});
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    Backward<E> call{plan,
                     shape,
                     rows_of<E>(d_qkv),
                     rows_of<float>(delta),
                     rows_of<const E>(d_o),
                     rows_of<const E>(o),
                     rows_of<const float>(lse),
                     rows_of<const E>(qkv),
                     moves_16(d_qkv),
                     moves_16(o)};
    if constexpr (std::is_same_v<E, bf16>) {
      if (tensor_cores) {
        call.qkv = aligned_rows(cuda, qkv, kFirstFreeSlot);
        call.d_o = aligned_rows(cuda, d_o, kFirstFreeSlot + 1);
        dq_bf16(cuda, call);  // writes delta
        return dkdv_bf16(cuda, call);
      }
    }
    backward_generic<E>(cuda, call);
  });
}

}  // namespace simper::cuda
