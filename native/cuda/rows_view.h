#pragma once
// Tensors as kernels see them, and launches in which a thread owns a few neighbouring elements of a
// row. Accesses are 16 bytes where every row allows it (moves_16), one element otherwise: a window
// may start at any element.
#include <algorithm>
#include <cstdint>

#include "cuda/simt/simt.h"

namespace simper::cuda {

template <class T>
struct Rows {
  T* data;
  int64_t stride;  // elements

  SIMT_DEVICE T* operator[](int64_t t) const { return data + t * stride; }
};

template <class T>
Rows<T> rows_of(const Tensor& t) {
  return {static_cast<T*>(t.data), t.row_stride};
}

// Elements of T in 16 bytes.
template <class T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// Whether each row of t is a whole number of `bytes`, and starts at a multiple of them.
inline bool moves(const Tensor& t, int64_t bytes) {
  const int64_t size = size_of(t.dtype);
  return reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0 &&
         t.row_size() * size % bytes == 0 && (t.rows() <= 1 || t.row_stride * size % bytes == 0);
}
template <class... Tensors>
bool moves_16(const Tensors&... tensors) {
  return (moves(tensors, 16) && ...);
}
// The same of a vector's begin alone: its last elements are for the caller to see to.
inline bool starts_at(const Tensor& t, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0;
}

// Any tensor as a matrix: one long row if it is dense. Vectors are rank 1 and would otherwise be
// rows of one element.
inline Tensor as_matrix(const Tensor& t) {
  Tensor matrix = t;
  matrix.rank = 2;
  matrix.shape[0] = t.dense() ? 1 : t.rows();
  matrix.shape[1] = t.dense() ? t.size() : t.row_size();
  if (t.dense()) matrix.row_stride = t.size();
  return matrix;
}

// ---- a thread's elements ------------------------------------------------------------------------

// N elements as f32. At most 16 bytes move at once; p is aligned to what does.
template <int N, class T>
SIMT_DEVICE void load_floats(float (&values)[N], const T* p) {
  constexpr int kStep = N < kVector<T> ? N : kVector<T>;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    const simt::Pack<T, kStep> pack = simt::load_pack<kStep>(p + i);
#pragma unroll
    for (int j = 0; j < kStep; ++j) values[i + j] = simt::to_float(pack.element[j]);
  }
}

template <int N>
SIMT_DEVICE void store_floats(float* p, const float (&values)[N]) {
  constexpr int kStep = N < 4 ? N : 4;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    simt::Pack<float, kStep> pack;
#pragma unroll
    for (int j = 0; j < kStep; ++j) pack.element[j] = values[i + j];
    simt::store_pack(p + i, pack);
  }
}
template <int N>
SIMT_DEVICE void store_floats(bf16* p, const float (&values)[N]) {
  if constexpr (N == 1) {
    *p = simt::from_float<bf16>(values[0]);
  } else {
    constexpr int kStep = N < 8 ? N : 8;
#pragma unroll
    for (int i = 0; i < N; i += kStep) {
      simt::Pack<uint32_t, kStep / 2> pack;  // two at a time: one conversion instruction
#pragma unroll
      for (int j = 0; j < kStep; j += 2) {
        pack.element[j / 2] = simt::pack_bf16(values[i + j], values[i + j + 1]);
      }
      simt::store_pack(reinterpret_cast<uint32_t*>(p + i), pack);
    }
  }
}

// ---- launches -----------------------------------------------------------------------------------

// Whole warps for `work` threads' worth of a row, at most `limit`.
inline unsigned warps_for(int64_t work, unsigned limit) {
  return static_cast<unsigned>(std::clamp<int64_t>((work + 31) / 32 * 32, 32, limit));
}

// A launch that covers rows · columns with one piece of `width` elements per thread. Everything is
// in grid.x, whose limit is 2^31: grid.y ends at 65535.
struct Cover {
  simt::Grid grid;
  unsigned threads;
  unsigned parts;  // blocks per row

  Cover(int64_t rows, int64_t columns, int width, unsigned limit = 256) {
    const int64_t pieces = (columns + width - 1) / width;
    threads = warps_for(pieces, limit);
    parts = static_cast<unsigned>((pieces + threads - 1) / threads);
    grid.x = static_cast<unsigned>(rows * parts);
  }
};

// Where a thread of such a launch begins; past the row's end where it has nothing to do.
struct Piece {
  int64_t row, column;
};
template <int N>
SIMT_DEVICE Piece piece(unsigned parts) {
  const unsigned block = simt::block().x;
  const int64_t index = static_cast<int64_t>(block % parts) * simt::threads() + simt::thread();
  return {block / parts, index * N};
}

}  // namespace simper::cuda
