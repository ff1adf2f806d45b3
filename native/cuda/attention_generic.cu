// Flash attention for f32, for head dims that the tensor-core kernels do not have, and for every
// call with a window, which those do not know: the same algorithm, lists and order of sums
// (attention_forward_bf16.cu, attention_dq_bf16.cu, attention_dkdv_bf16.cu), with f32 fused
// multiply-adds. Keys outside the window of every row of a tile are not visited, those at its edge
// are masked.
//
//   One block: 256 threads as 16 x 16, a tile of 64, 32 or 16 rows (head dims up to 64, 128, 256),
//   D padded with zeros to 32, 64, 128 or 256 columns. Tiles are f32 in shared memory, rows 4
//   floats longer than they need be: 16 lanes reading 16 rows then hit all banks evenly. A thread
//   has 4x4, 2x2 or 1 of the scores, and 4 or more columns of as many rows of the result, in
//   registers; p and ds pass through shared memory, where other threads read them.
//
//   At most 128 registers, none spilled. Shared memory of a block, forward and backward:
//     D up to 32   35, 53 KiB     64   51, 85 KiB     128   38, 70 KiB     256   34, 66 KiB
//   Cost: the FLOPs of the tensor-core kernels, bound by shared memory at some 2 to 4 FLOPs per
//   float read. For f32 runs and checks; a model trains in bf16.
#include <cmath>

#include "cuda/attention_walk.h"

namespace simper::cuda::attention {
namespace {

constexpr unsigned kThreads = 256;

// Rows of a tile of queries and of keys.
template <int kWidth>
constexpr int kTile = kWidth <= 64    ? 64
                      : kWidth == 128 ? 32
                                      : 16;

// Where a thread stands: rows kShare·y … of the tile on the left; columns x, x + 16 … of scores.
struct Place {
  int x, y;
  SIMT_DEVICE Place()
      : x(static_cast<int>(simt::thread()) % 16), y(static_cast<int>(simt::thread()) / 16) {}
};

// Over the 16 threads of a row, in each of them.
SIMT_DEVICE float row_sum(float value) {
#pragma unroll
  for (int mask = 8; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  return value;
}
SIMT_DEVICE float row_max(float value) {
#pragma unroll
  for (int mask = 8; mask > 0; mask /= 2) value = fmaxf(value, simt::shuffle_xor(value, mask));
  return value;
}

// How many keys from the tile's first on come before the window of the row? May be less than 0.
SIMT_DEVICE int hidden(const Plan& plan, const QueryTile& queries, const Keys& keys, int tile,
                       int row) {
  const int place = keys.is_own(tile) ? row : row + queries.shift;
  return place - plan.window + 1 - keys.begin(tile);
}

// The shapes of one instance: kWidth columns, kRows rows, kShare of them per thread.
template <int kWidth>
struct Tiles {
  static constexpr int kRows = kTile<kWidth>, kShare = kRows / 16;
  static constexpr int kPitch = kWidth + 4, kScorePitch = kRows + 4;
  static constexpr int kColumns = kWidth / 16;               // of the result, per thread
  static constexpr int kPack = kColumns < 4 ? kColumns : 4;  // that lie together
  // The last row needs no room behind it.
  static constexpr int kFloats = (kRows - 1) * kPitch + kWidth;
  static constexpr int kScoreFloats = (kRows - 1) * kScorePitch + kRows;

  using Scores = float[kShare][kShare];
  using Result = float[kShare][kColumns];

  static size_t shared_bytes(int tiles) {
    // As arrays are taken: each to a multiple of 128 bytes.
    const auto bytes = [](int floats) { return (floats * sizeof(float) + 127) / 128 * 128; };
    return static_cast<size_t>(tiles) * bytes(kFloats) + bytes(kScoreFloats);
  }

  // Rows [begin, end) from column `column` on; zeros behind them and behind D columns.
  template <class T>
  SIMT_DEVICE static void load(float* tile, Rows<const T> rows, int64_t column, int D, int begin,
                               int end) {
    for (int i = static_cast<int>(simt::thread()); i < kRows * kWidth;
         i += static_cast<int>(kThreads)) {
      const int r = i / kWidth, d = i % kWidth;
      float value = 0.0f;
      if (begin + r < end && d < D) value = simt::to_float(rows[begin + r][column + d]);
      tile[r * kPitch + d] = value;
    }
  }

  // s = a · bᵀ
  SIMT_DEVICE static void multiply_transposed(Scores& s, const float* a, const float* b, int D) {
    const Place at;
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int j = 0; j < kShare; ++j) s[i][j] = 0.0f;
    }
    for (int d = 0; d < D; d += 4) {
      simt::Pack<float, 4> left[kShare], right[kShare];
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        left[i] = simt::load_pack<4>(a + (at.y * kShare + i) * kPitch + d);
        right[i] = simt::load_pack<4>(b + (at.x + 16 * i) * kPitch + d);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int i = 0; i < kShare; ++i) {
#pragma unroll
          for (int j = 0; j < kShare; ++j) s[i][j] += left[i].element[e] * right[j].element[e];
        }
      }
    }
  }

  SIMT_DEVICE static void store_scores(float* to, const Scores& s) {
    const Place at;
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        to[(at.y * kShare + i) * kScorePitch + at.x + 16 * j] = s[i][j];
      }
    }
  }

  // Column of the tile in which a thread's column c lies.
  SIMT_DEVICE static int column(int x, int c) {
    return c / kPack * 16 * kPack + x * kPack + c % kPack;
  }

  // c += p · b
  SIMT_DEVICE static void multiply(Result& c, const float* p, const float* b, int D) {
    const Place at;
#pragma unroll 2
    for (int k = 0; k < kRows; k += 4) {
      simt::Pack<float, 4> left[kShare];
#pragma unroll
      for (int i = 0; i < kShare; ++i) {
        left[i] = simt::load_pack<4>(p + (at.y * kShare + i) * kScorePitch + k);
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int n = 0; n < kColumns; n += kPack) {
          if (n > 0 && 16 * n >= D) continue;
          const auto right = simt::load_pack<kPack>(b + (k + e) * kPitch + column(at.x, n));
#pragma unroll
          for (int i = 0; i < kShare; ++i) {
#pragma unroll
            for (int w = 0; w < kPack; ++w) {
              c[i][n + w] += left[i].element[e] * right.element[w];
            }
          }
        }
      }
    }
  }

  template <class T>
  SIMT_DEVICE static void store(Rows<T> to, int64_t first_column, int D, int begin, int end,
                                const Result& c, const float (&factor)[kShare]) {
    const Place at;
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
      const int t = begin + at.y * kShare + i;
      if (t >= end) continue;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const int d = column(at.x, n);
        if (d < D) to[t][first_column + d] = simt::from_float<T>(factor[i] * c[i][n]);
      }
    }
  }

  SIMT_DEVICE static void clear(Result& c) {
#pragma unroll
    for (int i = 0; i < kShare; ++i) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) c[i][n] = 0.0f;
    }
  }
};

template <class T, int kWidth>
SIMT_KERNEL_BOUNDS(kThreads, 2)
forward_kernel(Forward<T> a) {
  using Tile = Tiles<kWidth>;
  SIMT_SHARED(memory);
  float* q = memory.take<float>(Tile::kFloats);
  float* kv_tile = memory.take<float>(Tile::kFloats);  // k, then v
  float* p = memory.take<float>(Tile::kScoreFloats);

  const int index = static_cast<int>(simt::block().x) / a.heads.queries;
  const int head = static_cast<int>(simt::block().x) % a.heads.queries;
  if (index >= a.plan.counts[0]) return;
  const QueryTile tile = a.plan.queries[index];
  const Keys keys(tile, Tile::kRows);
  const int D = a.heads.dim, kv = head / a.heads.group();
  const Place at;
  const int row = tile.begin + at.y * Tile::kShare;
  const float scale = a.heads.scale * kLog2E;

  Tile::load(q, a.qkv, a.heads.q(head), D, tile.begin, tile.end);
  typename Tile::Result o;
  Tile::clear(o);
  float top[Tile::kShare], sum[Tile::kShare];
#pragma unroll
  for (int i = 0; i < Tile::kShare; ++i) top[i] = -INFINITY, sum[i] = 0.0f;

  for (int t = 0; t < keys.tiles; ++t) {
    simt::barrier();  // nobody reads the last v and p any more
    Tile::load(kv_tile, a.qkv, a.heads.k(kv), D, keys.begin(t), keys.end(t));
    simt::barrier();
    typename Tile::Scores s;
    Tile::multiply_transposed(s, q, kv_tile, D);
#pragma unroll
    for (int i = 0; i < Tile::kShare; ++i) {
      const int visible = keys.visible(t, row + i) - at.x;
      const int before = hidden(a.plan, tile, keys, t, row + i) - at.x;
      float largest = top[i];
#pragma unroll
      for (int j = 0; j < Tile::kShare; ++j) {
        if (16 * j >= visible || 16 * j < before) s[i][j] = -INFINITY;
        largest = fmaxf(largest, s[i][j]);
      }
      largest = row_max(largest);
      const float shift = largest == -INFINITY ? 0.0f : largest * scale;
      const float factor = simt::exp2_fast(top[i] * scale - shift);
      top[i] = largest;
      sum[i] *= factor;
#pragma unroll
      for (int j = 0; j < Tile::kShare; ++j) {
        s[i][j] = simt::exp2_fast(s[i][j] * scale - shift);
        sum[i] += s[i][j];
      }
#pragma unroll
      for (int n = 0; n < Tile::kColumns; ++n) o[i][n] *= factor;
    }
    Tile::store_scores(p, s);
    simt::barrier();  // p is whole, and nobody reads k any more
    Tile::load(kv_tile, a.qkv, a.heads.v(kv), D, keys.begin(t), keys.end(t));
    simt::barrier();
    Tile::multiply(o, p, kv_tile, D);
  }

  float factor[Tile::kShare];
#pragma unroll
  for (int i = 0; i < Tile::kShare; ++i) {
    const float total = row_sum(sum[i]);
    factor[i] = 1.0f / total;
    if (at.x == 0 && row + i < tile.end) {
      a.lse[row + i][head] = top[i] * a.heads.scale + logf(total);
    }
  }
  Tile::store(a.o, a.heads.q(head), D, tile.begin, tile.end, o, factor);
}

template <class T, int kWidth>
SIMT_KERNEL_BOUNDS(kThreads, 2)
dq_kernel(Backward<T> a) {
  using Tile = Tiles<kWidth>;
  SIMT_SHARED(memory);
  float* q = memory.take<float>(Tile::kFloats);
  float* d_o = memory.take<float>(Tile::kFloats);
  float* k = memory.take<float>(Tile::kFloats);
  float* v = memory.take<float>(Tile::kFloats);
  float* ds = memory.take<float>(Tile::kScoreFloats);

  const int index = static_cast<int>(simt::block().x) / a.heads.queries;
  const int head = static_cast<int>(simt::block().x) % a.heads.queries;
  if (index >= a.plan.counts[0]) return;
  const QueryTile tile = a.plan.queries[index];
  const Keys keys(tile, Tile::kRows);
  const int D = a.heads.dim, kv = head / a.heads.group();
  const Place at;
  const int row = tile.begin + at.y * Tile::kShare;
  const float scale = a.heads.scale * kLog2E;

  Tile::load(q, a.qkv, a.heads.q(head), D, tile.begin, tile.end);
  Tile::load(d_o, a.d_o, a.heads.q(head), D, tile.begin, tile.end);
  float lse[Tile::kShare], delta[Tile::kShare];
#pragma unroll
  for (int i = 0; i < Tile::kShare; ++i) {
    const bool exists = row + i < tile.end;
    float sum = 0.0f;
    for (int d = at.x; exists && d < D; d += 16) {
      const int64_t column = a.heads.q(head) + d;
      sum += simt::to_float(a.d_o[row + i][column]) * simt::to_float(a.o[row + i][column]);
    }
    delta[i] = row_sum(sum);
    lse[i] = exists ? a.lse[row + i][head] * kLog2E : INFINITY;  // p = exp2(-inf) = 0
    if (exists && at.x == 0) a.delta[row + i][head] = delta[i];
  }

  typename Tile::Result dq;
  Tile::clear(dq);
  for (int t = 0; t < keys.tiles; ++t) {
    simt::barrier();  // nobody reads the last k and ds any more
    Tile::load(k, a.qkv, a.heads.k(kv), D, keys.begin(t), keys.end(t));
    Tile::load(v, a.qkv, a.heads.v(kv), D, keys.begin(t), keys.end(t));
    simt::barrier();
    typename Tile::Scores s, dp;
    Tile::multiply_transposed(s, q, k, D);
    Tile::multiply_transposed(dp, d_o, v, D);
#pragma unroll
    for (int i = 0; i < Tile::kShare; ++i) {
      const int visible = keys.visible(t, row + i) - at.x;
      const int before = hidden(a.plan, tile, keys, t, row + i) - at.x;
#pragma unroll
      for (int j = 0; j < Tile::kShare; ++j) {
        const float value = simt::exp2_fast(s[i][j] * scale - lse[i]) * (dp[i][j] - delta[i]);
        s[i][j] = 16 * j < visible && 16 * j >= before ? value : 0.0f;
      }
    }
    Tile::store_scores(ds, s);
    simt::barrier();
    Tile::multiply(dq, ds, k, D);
  }

  float factor[Tile::kShare];
#pragma unroll
  for (int i = 0; i < Tile::kShare; ++i) factor[i] = a.heads.scale;
  Tile::store(a.d_qkv, a.heads.q(head), D, tile.begin, tile.end, dq, factor);
}

template <class T, int kWidth>
SIMT_KERNEL_BOUNDS(kThreads, 2)
dkdv_kernel(Backward<T> a) {
  using Tile = Tiles<kWidth>;
  SIMT_SHARED(memory);
  float* q = memory.take<float>(Tile::kFloats);
  float* d_o = memory.take<float>(Tile::kFloats);
  float* k = memory.take<float>(Tile::kFloats);
  float* v = memory.take<float>(Tile::kFloats);
  float* scores = memory.take<float>(Tile::kScoreFloats);  // p, then ds

  const int index = static_cast<int>(simt::block().x) / a.heads.keys;
  const int kv = static_cast<int>(simt::block().x) % a.heads.keys;
  if (index >= a.plan.counts[1]) return;
  const KeyTile tile = a.plan.keys[index];
  const int D = a.heads.dim, group = a.heads.group();
  const Place at;
  const int key = tile.begin + at.y * Tile::kShare;
  const float scale = a.heads.scale * kLog2E;

  Tile::load(k, a.qkv, a.heads.k(kv), D, tile.begin, tile.end);
  Tile::load(v, a.qkv, a.heads.v(kv), D, tile.begin, tile.end);
  typename Tile::Result dk, dv;
  Tile::clear(dk);
  Tile::clear(dv);
  Visits visit(a.plan, tile, Tile::kRows, group);
  do {
    const int head = kv * group + visit.head(), begin = visit.begin(), end = visit.end();
    const bool diagonal = visit.is_diagonal(tile.begin + Tile::kRows - 1);
    const int reach = a.plan.window - visit.shift();  // row t sees key j only if t < j + reach
    if (begin >= tile.end - 1 + reach) continue;
    simt::barrier();  // nobody reads the last q and ds any more
    Tile::load(q, a.qkv, a.heads.q(head), D, begin, end);
    Tile::load(d_o, a.d_o, a.heads.q(head), D, begin, end);
    float lse[Tile::kShare], delta[Tile::kShare];
#pragma unroll
    for (int j = 0; j < Tile::kShare; ++j) {
      const int t = begin + at.x + 16 * j;
      lse[j] = t < end ? a.lse[t][head] * kLog2E : INFINITY;
      delta[j] = t < end ? a.delta[t][head] : 0.0f;
    }
    simt::barrier();
    typename Tile::Scores p, ds;
    Tile::multiply_transposed(p, k, q, D);
    Tile::multiply_transposed(ds, v, d_o, D);
#pragma unroll
    for (int i = 0; i < Tile::kShare; ++i) {
#pragma unroll
      for (int j = 0; j < Tile::kShare; ++j) {
        const int t = begin + at.x + 16 * j;
        const bool sees = (!diagonal || t >= key + i) && t < key + i + reach;
        const float value = simt::exp2_fast(p[i][j] * scale - lse[j]);
        p[i][j] = sees ? value : 0.0f;
        ds[i][j] = sees ? value * (ds[i][j] - delta[j]) : 0.0f;
      }
    }
    Tile::store_scores(scores, p);
    simt::barrier();
    Tile::multiply(dv, scores, d_o, D);
    simt::barrier();  // nobody reads p any more
    Tile::store_scores(scores, ds);
    simt::barrier();
    Tile::multiply(dk, scores, q, D);
  } while (visit.next());

  float factor[Tile::kShare], one[Tile::kShare];
#pragma unroll
  for (int i = 0; i < Tile::kShare; ++i) factor[i] = a.heads.scale, one[i] = 1.0f;
  Tile::store(a.d_qkv, a.heads.k(kv), D, tile.begin, tile.end, dk, factor);
  Tile::store(a.d_qkv, a.heads.v(kv), D, tile.begin, tile.end, dv, one);
}

// Calls f with the padded head dim as a constant.
template <class F>
void with_padded_width(int64_t head_dim, F&& f) {
  if (head_dim <= 32) return f(Width<32>{});
  if (head_dim <= 64) return f(Width<64>{});
  if (head_dim <= 128) return f(Width<128>{});
  f(Width<256>{});
}

}  // namespace

int generic_rows(int64_t head_dim) {
  int rows = 0;
  with_padded_width(head_dim, [&]<int kWidth>(Width<kWidth>) { rows = kTile<kWidth>; });
  return rows;
}

template <class T>
void forward_generic(CudaContext& cuda, const Forward<T>& call) {
  with_padded_width(call.heads.dim, [&]<int kWidth>(Width<kWidth>) {
    const simt::Grid grid{static_cast<unsigned>(call.plan.query_limit * call.heads.queries)};
    simt::launch<forward_kernel<T, kWidth>>(cuda, grid, kThreads, Tiles<kWidth>::shared_bytes(2),
                                            call);
  });
}

template <class T>
void backward_generic(CudaContext& cuda, const Backward<T>& call) {
  with_padded_width(call.heads.dim, [&]<int kWidth>(Width<kWidth>) {
    const size_t shared = Tiles<kWidth>::shared_bytes(4);
    const simt::Grid queries{static_cast<unsigned>(call.plan.query_limit * call.heads.queries)};
    const simt::Grid keys{static_cast<unsigned>(call.plan.key_limit * call.heads.keys)};
    simt::launch<dq_kernel<T, kWidth>>(cuda, queries, kThreads, shared, call);
    simt::launch<dkdv_kernel<T, kWidth>>(cuda, keys, kThreads, shared, call);
  });
}

template void forward_generic(CudaContext& cuda, const Forward<float>& call);
template void forward_generic(CudaContext& cuda, const Forward<bf16>& call);
template void backward_generic(CudaContext& cuda, const Backward<float>& call);
template void backward_generic(CudaContext& cuda, const Backward<bf16>& call);

}  // namespace simper::cuda::attention
