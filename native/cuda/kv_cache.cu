// Generation: the cache of keys and values, and attention of one new row per sequence over it.
//
//   kv_cache_write   copies rows, 16 bytes per thread where they lie that way.
//
//   attention_decode o = softmax(q·kᵀ/√D)·v over the cache rows of each sequence [Dao 2023, the
//   online softmax; Dao et al. 2023, flash-decoding: long ranges are split between blocks].
//     One block: a sequence, a key/value head, a part of 512 keys; its 4 warps have the G query
//     heads of the group in common, so that a cached row is read from memory once. 64 keys at a
//     time: 8 lanes per key sum q·k of every head, a warp per head does the softmax, a thread per
//     (head, column) adds p·v. A second kernel joins the parts, in order.
//     Bound by reading the cache: 2·D·size bytes per key and key/value head, 2·G FLOPs per element.
//     The number of parts follows from the rows of the cache, which the host knows; parts behind
//     the end of a range return at once.
#include <cmath>

#include "cuda/attention.h"
#include "cuda/check.h"
#include "cuda/dispatch.h"
#include "cuda/fault_text.h"
#include "cuda/rows_view.h"

namespace simper::cuda {
namespace {

template <class T, int N>
SIMT_KERNEL(256)
kv_cache_write_kernel(Rows<T> k_cache, Rows<T> v_cache, Rows<const T> qkv, const int32_t* slots,
                      int64_t first, int64_t width, unsigned parts, IndexCheck check) {
  const Piece at = piece<N>(parts);
  const int32_t slot = slots[at.row];
  if (at.column >= width || !check_index(check, at.row, slot) || slot < 0) return;
  const T* from = qkv[at.row] + first + at.column;
  simt::store_pack(k_cache[slot] + at.column, simt::load_pack<N>(from));
  simt::store_pack(v_cache[slot] + at.column, simt::load_pack<N>(from + width));
}

constexpr unsigned kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kPartKeys = 512, kKeys = 64;  // of a block, of a round
constexpr int kLanes = 8;                   // per key

template <class T>
struct Decode {
  Rows<T> o;
  Rows<const T> qkv, k_cache, v_cache;
  const int32_t* ranges;
  int32_t group, kv_heads, dim, parts;
  float scale;
  float* partials;  // (T, K, parts, G, D + 2): o relative to the largest score, that score, the sum
  int64_t cache_rows;
  IndexCheck check;

  SIMT_DEVICE float* partial(int64_t t, int kv, int part, int g) const {
    const int64_t index = ((t * kv_heads + kv) * parts + part) * group + g;
    return partials + index * (dim + 2);
  }
  // Keys of row t; none where the range leaves the cache.
  SIMT_DEVICE int32_t keys_of(int64_t t, int32_t& begin) const {
    begin = ranges[2 * t];
    const int64_t length = ranges[2 * t + 1];
    const bool inside = begin >= 0 && length >= 0 && begin + length <= cache_rows;
    return inside ? static_cast<int32_t>(length) : 0;
  }
};

// N elements of k at once.
template <class T, int N>
SIMT_KERNEL(kThreads)
decode_part_kernel(Decode<T> a) {
  const int G = a.group, D = a.dim;
  SIMT_SHARED(memory);
  float* q = memory.take<float>(G * D);
  float* o = memory.take<float>(G * D);  // a thread adds to its own elements only
  float* scores = memory.take<float>(G * kKeys);
  float* factors = memory.take<float>(G);
  float* states = memory.take<float>(2 * G);  // largest score and sum of each head

  const int part = static_cast<int>(simt::block().x) % a.parts;
  const int kv = static_cast<int>(simt::block().x) / a.parts % a.kv_heads;
  const int64_t t = simt::block().x / (static_cast<unsigned>(a.parts) * a.kv_heads);
  int32_t first = 0;
  const int32_t length = a.keys_of(t, first);
  if (part * kPartKeys >= length) return;
  const int count = length - part * kPartKeys < kPartKeys ? length - part * kPartKeys : kPartKeys;
  first += part * kPartKeys;

  const int thread = static_cast<int>(simt::thread());
  for (int i = thread; i < G * D; i += static_cast<int>(kThreads)) {
    q[i] = simt::to_float(a.qkv[t][static_cast<int64_t>(kv) * G * D + i]) * a.scale *
           attention::kLog2E;
    o[i] = 0.0f;
  }
  for (int i = thread; i < 2 * G; i += static_cast<int>(kThreads)) {
    states[i] = i % 2 == 0 ? -INFINITY : 0.0f;
  }
  for (int base = 0; base < count; base += kKeys) {
    const int keys = count - base < kKeys ? count - base : kKeys;
    simt::barrier();  // q is there; nobody reads the last scores any more
    for (int key = thread / kLanes; key < kKeys; key += static_cast<int>(kThreads) / kLanes) {
      const T* k = a.k_cache[first + base + (key < keys ? key : 0)] + static_cast<int64_t>(kv) * D;
      for (int g = 0; g < G; ++g) {
        float sum = 0.0f;
        for (int d = simt::lane() % kLanes * N; d < D; d += kLanes * N) {
          float values[N];
          load_floats(values, k + d);
#pragma unroll
          for (int e = 0; e < N; ++e) sum += q[g * D + d + e] * values[e];
        }
#pragma unroll
        for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += simt::shuffle_xor(sum, mask);
        if (simt::lane() % kLanes == 0) scores[g * kKeys + key] = key < keys ? sum : -INFINITY;
      }
    }
    simt::barrier();
    for (int g = simt::warp(); g < G; g += kWarps) {
      float* state = states + 2 * g;
      const float top = state[0], sum = state[1];
      float* row = scores + g * kKeys;
      const float s0 = row[simt::lane()], s1 = row[simt::lane() + 32];
      const float largest = fmaxf(top, simt::warp_max(fmaxf(s0, s1)));
      const float p0 = simt::exp2_fast(s0 - largest), p1 = simt::exp2_fast(s1 - largest);
      const float gained = simt::warp_sum(p0 + p1), factor = simt::exp2_fast(top - largest);
      row[simt::lane()] = p0;
      row[simt::lane() + 32] = p1;
      simt::sync_warp();  // every lane has read the state
      if (simt::lane() == 0) {
        state[0] = largest;
        state[1] = sum * factor + gained;
        factors[g] = factor;
      }
    }
    simt::barrier();
    for (int i = thread; i < G * D; i += static_cast<int>(kThreads)) {
      const int g = i / D;
      const T* v = a.v_cache[first + base] + static_cast<int64_t>(kv) * D + i % D;
      float sum = o[i] * factors[g];
      for (int key = 0; key < keys; ++key, v += a.v_cache.stride) {
        sum += scores[g * kKeys + key] * simt::to_float(*v);
      }
      o[i] = sum;
    }
  }
  for (int i = thread; i < G * D; i += static_cast<int>(kThreads)) {
    a.partial(t, kv, part, i / D)[i % D] = o[i];
  }
  for (int i = thread; i < 2 * G; i += static_cast<int>(kThreads)) {
    a.partial(t, kv, part, i / 2)[D + i % 2] = states[i];
  }
}

// A block per row and query head.
template <class T>
SIMT_KERNEL(kThreads)
decode_join_kernel(Decode<T> a) {
  const int heads = a.group * a.kv_heads, D = a.dim;
  const int64_t t = simt::block().x / static_cast<unsigned>(heads);
  const int head = static_cast<int>(simt::block().x) % heads;
  const int kv = head / a.group, g = head % a.group;
  int32_t first = 0;
  const int32_t length = a.keys_of(t, first);
  const int parts = (length + kPartKeys - 1) / kPartKeys;
  if (simt::thread() == 0 && head == 0 && length == 0) {
    const int32_t *range = a.ranges + 2 * t, count = range[1];
    if (count != 0 || range[0] < 0 || range[0] > a.cache_rows) {
      report(a.check, t, range[0], count);
    }
  }
  float top = -INFINITY, total = 0.0f;
  for (int part = 0; part < parts; ++part) top = fmaxf(top, a.partial(t, kv, part, g)[D]);
  for (int part = 0; part < parts; ++part) {
    const float* state = a.partial(t, kv, part, g) + D;
    total += state[1] * simt::exp2_fast(state[0] - top);
  }
  for (int d = static_cast<int>(simt::thread()); d < D; d += static_cast<int>(kThreads)) {
    float sum = 0.0f;
    for (int part = 0; part < parts; ++part) {
      const float* partial = a.partial(t, kv, part, g);
      sum += partial[d] * simt::exp2_fast(partial[D] - top);
    }
    a.o[t][static_cast<int64_t>(head) * D + d] =
        simt::from_float<T>(parts > 0 ? sum / total : 0.0f);  // no key: zeros
  }
}

}  // namespace

void kv_cache_write(Context& context, Tensor k_cache, Tensor v_cache, Tensor qkv, Tensor slots,
                    int64_t) {
  CudaContext& cuda = cuda_of(context);
  const IndexCheck check = cuda.check_indices("kv_cache_write", "slots", slots, -1, k_cache.rows());
  const int64_t width = k_cache.row_size(), first = qkv.row_size() - 2 * width;
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    const bool wide = moves_16(k_cache, v_cache, qkv) && first % kVector<E> == 0;
    with_width<kVector<E>>(wide, [&]<int N>(Width<N>) {
      const Cover cover(qkv.rows(), width, N);
      simt::launch<kv_cache_write_kernel<E, N>>(
          cuda, cover.grid, cover.threads, 0, rows_of<E>(k_cache), rows_of<E>(v_cache),
          rows_of<const E>(qkv), static_cast<const int32_t*>(slots.data), first, width, cover.parts,
          check);
    });
  });
}

void attention_decode(Context& context, Tensor o, Tensor qkv, Tensor k_cache, Tensor v_cache,
                      Tensor ranges, int64_t heads) {
  CudaContext& cuda = cuda_of(context);
  const int64_t T = qkv.rows(), M = k_cache.rows();
  const int64_t D = o.row_size() / heads, K = k_cache.row_size() / D, G = heads / K;
  const int64_t parts = std::max<int64_t>(1, (M + kPartKeys - 1) / kPartKeys);
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    Decode<E> call{};
    call.o = rows_of<E>(o);
    call.qkv = rows_of<const E>(qkv);
    call.k_cache = rows_of<const E>(k_cache);
    call.v_cache = rows_of<const E>(v_cache);
    call.ranges = static_cast<const int32_t*>(ranges.data);
    call.group = static_cast<int32_t>(G);
    call.kv_heads = static_cast<int32_t>(K);
    call.dim = static_cast<int32_t>(D);
    call.parts = static_cast<int32_t>(parts);
    call.scale = 1.0f / std::sqrt(static_cast<float>(D));
    call.partials = cuda.scratch<float>(T * heads * parts * (D + 2));
    call.cache_rows = M;
    call.check = cuda.add_check({"attention_decode", "ranges", 2, 0, M, range_text});
    const auto floats = static_cast<size_t>(2 * G * D + G * kKeys + 3 * G);
    const size_t shared = floats * sizeof(float) + 5 * 128;  // 5 arrays, each a multiple of 128
    const simt::Grid blocks{static_cast<unsigned>(T * K * parts)};
    with_width<kVector<E>>(moves_16(k_cache) && D % kVector<E> == 0, [&]<int N>(Width<N>) {
      simt::launch<decode_part_kernel<E, N>>(cuda, blocks, kThreads, shared, call);
    });
    simt::launch<decode_join_kernel<E>>(cuda, simt::Grid{static_cast<unsigned>(T * heads)},
                                        kThreads, 0, call);
  });
}

}  // namespace simper::cuda
