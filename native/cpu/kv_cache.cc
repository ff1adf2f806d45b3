// Generation: the cache of keys and values, and attention of one new row per sequence over it.
//
//   kv_cache_write copies rows. attention_decode runs the online softmax of the forward with the G
//   query heads of one key/value head as the rows of a tile: each cached row is read once for all
//   of them, 64 keys at a time. One task per (row, key/value head); the work is bound by reading
//   the cache, and G rows are too few for the tiles of AMX.
#include <cstring>

#include "cpu/attention_online.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "ops/ops.h"

namespace simper::cpu {

void kv_cache_write(Context&, Tensor k_cache, Tensor v_cache, Tensor qkv, Tensor slots, int64_t) {
  check_indices("kv_cache_write", "slots", slots, -1, k_cache.rows());
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    const int64_t width = k_cache.row_size(),
                  first = qkv.row_size() - 2 * width;  // k follows the q heads
    const int64_t bytes = width * static_cast<int64_t>(sizeof(E));
    parallel_rows(qkv.rows(), 2 * bytes, [&](int64_t t) {
      const int32_t slot = *slots.row<int32_t>(t);
      if (slot < 0) return;
      const E* k = qkv.row<E>(t) + first;
      std::memcpy(k_cache.row<E>(slot), k, bytes);
      std::memcpy(v_cache.row<E>(slot), k + width, bytes);
    });
  });
}

void attention_decode(Context&, Tensor o, Tensor qkv, Tensor k_cache, Tensor v_cache, Tensor ranges,
                      int64_t heads) {
  using namespace attention;
  check_ranges("attention_decode", ranges, k_cache.rows());
  const int64_t D = o.row_size() / heads, kv_heads = k_cache.row_size() / D, G = heads / kv_heads;
  with_dtype(qkv.dtype, [&]<class E>(E*) {
    parallel_tasks(qkv.rows() * kv_heads, [&](int64_t task) {
      const int64_t t = task / kv_heads, kv = task % kv_heads;
      const int64_t begin = ranges.row<int32_t>(t)[0], length = ranges.row<int32_t>(t)[1];
      Scratch& scratch = thread_scratch();
      scratch.reset(OnlineSoftmax<F32Forward>::scratch_floats(G, D));
      OnlineSoftmax<F32Forward> softmax(scratch, G, D);
      softmax.begin(1, G, [&](int64_t) { return qkv.row<E>(t) + kv * G * D; });
      for (int64_t done = 0; done < length; done += kKeys) {
        const int64_t count = std::min(kKeys, length - done), row = begin + done;
        softmax.fold(k_cache.row<E>(row) + kv * D, v_cache.row<E>(row) + kv * D, k_cache.row_stride,
                     count, Band{});
      }
      softmax.finish(
          1, G, [&](int64_t) { return o.row<E>(t) + kv * G * D; },
          [](int64_t) -> float* { return nullptr; });
    });
  });
}

}  // namespace simper::cpu
