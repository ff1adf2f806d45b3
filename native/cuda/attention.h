#pragma once
// What the kernels of attention are given. attention.cu checks and prepares the arguments of an op
// and picks the kernels: attention_*_bf16.cu on tensor cores, attention_generic.cu for the rest.
#include <cstdint>

#include "cuda/attention_plan.h"
#include "cuda/context.h"
#include "cuda/rows_view.h"

namespace simper::cuda::attention {

constexpr float kLog2E = 1.44269504088896341f;  // exp(x) = exp2(x · kLog2E)

struct Heads {
  int32_t queries, keys;  // H, K
  int32_t dim;            // D
  float scale;            // 1/√D

  SIMT_DEVICE int32_t group() const { return queries / keys; }
  // Columns of qkv: {q heads, k heads, v heads}.
  SIMT_DEVICE int64_t q(int32_t head) const { return static_cast<int64_t>(head) * dim; }
  SIMT_DEVICE int64_t k(int32_t kv) const { return static_cast<int64_t>(queries + kv) * dim; }
  SIMT_DEVICE int64_t v(int32_t kv) const {
    return static_cast<int64_t>(queries + keys + kv) * dim;
  }
};

// Rows `aligned` to 16 bytes at every head are accessed by 16 bytes, others by elements.
template <class T>
struct Forward {
  Plan plan;
  Heads heads;
  Rows<T> o;
  Rows<float> lse;
  Rows<const T> qkv;
  bool o_aligned;
};

template <class T>
struct Backward {
  Plan plan;
  Heads heads;
  Rows<T> d_qkv;
  Rows<float> delta;
  Rows<const T> d_o, o;
  Rows<const float> lse;
  Rows<const T> qkv;
  bool d_qkv_aligned, o_aligned;
};

// Head dims 64, 96 and 128. qkv and d_o are aligned to 16 bytes at every head and row.
void forward_bf16(CudaContext& cuda, const Forward<bf16>& call);
void dq_bf16(CudaContext& cuda, const Backward<bf16>& call);
void dkdv_bf16(CudaContext& cuda, const Backward<bf16>& call);
inline bool has_tensor_core_kernel(DType dtype, int64_t head_dim) {
  return dtype == DType::bf16 && (head_dim == 64 || head_dim == 96 || head_dim == 128);
}
// Rows of a query tile. Lengths are in device memory; the mean length is what the host knows.
int forward_bf16_rows(int64_t T, int64_t S);
constexpr int kBackwardRows = 64;  // of a query tile and of a key tile

// Any head dim up to kMaxHeadDim, f32 and bf16.
constexpr int64_t kMaxHeadDim = 256;
template <class T>
void forward_generic(CudaContext& cuda, const Forward<T>& call);
template <class T>
void backward_generic(CudaContext& cuda, const Backward<T>& call);
int generic_rows(int64_t head_dim);  // of a query tile and of a key tile

// Calls f with the head dim as a constant.
template <class F>
void with_head_dim(int32_t head_dim, F&& f) {
  if (head_dim == 64) return f(Width<64>{});
  if (head_dim == 96) return f(Width<96>{});
  f(Width<128>{});
}

}  // namespace simper::cuda::attention
