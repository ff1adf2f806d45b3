// Flash-attention backward on packed segments with shared prefixes and grouped heads.  [Dao 2023,
// alg. 2]
//   d_qkv = {dq, dk, dv} of o = softmax(q·kᵀ/√D + mask)·v, from lse and delta = rowsum(do·o)
//
//   Two schedules of the same tile visits (attention_gradient.h), in the same order for every sum,
//   so the bits of the result do not depend on the choice, nor on the number of threads:
//
//     whole families   task = (family of segments tied by prefixes, key/value head): for each query
//     tile, for
//                      each key tile it sees, all 5 products. k, kᵀ, vᵀ are packed once and dk, dv
//                      of the family summed in the thread's scratch (20 bytes × D per row).
//     split            task = (query tile, key/value head) for dq, then (key tile, key/value head)
//     for dk, dv:
//                      s and dp twice, 7 products, but many small tasks. For few or uneven
//                      families.
//
//   The estimate of `prefers_families` picks the faster one. The heads of a group are summed inside
//   a task: no atomics. Cost: 2·D flops per product, visible couple (query, key) and query head;
//   one exponential. Measured as in attention.cc, 5 products counted: four pairs f32 111, bf16 122;
//   one segment of 2000 137 GFLOP/s.
#include "cpu/attention_gradient.h"
#include "cpu/attention_work.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "ops/ops.h"

namespace simper::cpu {
namespace attention {
namespace {

constexpr int64_t kFamilyScratchBytes = 32 << 20;  // a longer family is split, whatever the threads

bool prefers_families(const Work& work, int64_t kv_heads, int64_t D) {
  const int64_t threads = omp_get_max_threads();
  thread_local std::vector<int64_t> loads;
  loads.assign(threads, 0);
  int64_t total = 0;
  for (const int32_t f : work.families_longest_first) {
    const Family& family = work.families[f];
    if (family.key_tiles * KeyRows::floats(round_up(D, kLanes)) * 4 > kFamilyScratchBytes)
      return false;
    for (int64_t kv = 0; kv < kv_heads; ++kv)
      *std::min_element(loads.begin(), loads.end()) += family.cost;
    total += family.cost * kv_heads;
  }
  const int64_t longest = *std::max_element(loads.begin(), loads.end());
  return 5 * longest <=
         7 * total / threads;  // 5 products on the busiest thread, or 7 spread evenly
}

// The tensors of one call and how tiles of them are packed and written. E is their element type.
template <class E>
struct Backward {
  Tensor d_qkv, delta, d_o, lse, qkv;
  int64_t H, K, G, D, width;
  const Work& work;

  float scale() const { return 1.0f / std::sqrt(static_cast<float>(D)); }
  int64_t max_rows() const { return queries_per_tile(G) * G; }

  void load_queries(QueryRows& to, const QueryTile& tile, int64_t kv) const {
    const int64_t positions = tile.end - tile.begin, padded = round_up(positions * G, kLanes);
    to.rows = positions * G;
    to.begin = tile.begin;
    to.heads = G;
    for (int64_t i = 0; i < positions; ++i) {
      const int64_t t = tile.begin + i, r = i * G;
      pack(to.q + r * width, width, qkv.row<E>(t) + kv * G * D, D, G, D, scale());
      pack(to.d_o + r * width, width, d_o.row<E>(t) + kv * G * D, D, G, D, 1.0f);
      std::copy_n(lse.row<float>(t) + kv * G, G, to.lse + r);
      std::copy_n(delta.row<float>(t) + kv * G, G, to.delta + r);
    }
    for (float* p : {to.q, to.d_o}) std::fill(p + to.rows * width, p + padded * width, 0.0f);
    for (float* p : {to.lse, to.delta}) std::fill(p + to.rows, p + padded, 0.0f);
    std::fill(to.dq, to.dq + padded * width, 0.0f);
  }

  void store_queries(const QueryRows& from, const QueryTile& tile, int64_t kv) const {
    for (int64_t i = 0; i < tile.end - tile.begin; ++i) {
      unpack(d_qkv.row<E>(tile.begin + i) + kv * G * D, D, from.dq + i * G * width, width, G, D,
             scale());
    }
  }

  void load_keys(KeyRows& to, const KeyTile& tile, int64_t kv) const {
    const E *k = qkv.row<E>(tile.begin) + (H + kv) * D, *v = k + K * D;
    to.begin = tile.begin;
    to.count = tile.end - tile.begin;
    pack(to.k, width, k, qkv.row_stride, to.count, D, 1.0f);
    pack_transposed(to.k_transposed, k, qkv.row_stride, to.count, D);
    pack_transposed(to.v_transposed, v, qkv.row_stride, to.count, D);
  }

  void clear_keys(KeyRows& to) const {
    std::fill(to.dk, to.dk + kKeys * width, 0.0f);
    std::fill(to.dv, to.dv + kKeys * width, 0.0f);
  }

  void store_keys(const KeyRows& from, const KeyTile& tile, int64_t kv) const {
    if (!tile.covered) return;
    E *dk = d_qkv.row<E>(tile.begin) + (H + kv) * D, *dv = dk + K * D;
    unpack(dk, d_qkv.row_stride, from.dk, width, from.count, D, 1.0f);
    unpack(dv, d_qkv.row_stride, from.dv, width, from.count, D, 1.0f);
  }

  // f(key tile, causal) in the order of every sum over keys: the prefix, then the own range.
  template <class F>
  static void for_keys_of(const QueryTile& tile, F&& f) {
    for (int64_t k = tile.prefix_first; k < tile.prefix_last; ++k) f(k, false);
    for (int64_t k = tile.own_first; k < tile.own_last; ++k) f(k, true);
  }

  void family_task(const Family& family, int64_t kv) const {
    Scratch& scratch = thread_scratch();
    scratch.reset(QueryRows::floats(max_rows(), width) + GradientTile::scratch_floats() +
                  family.key_tiles * KeyRows::floats(width));
    QueryRows queries;
    queries.take(scratch, max_rows(), width);
    GradientTile gradient(scratch, D);
    float* const first_tile = scratch.take(family.key_tiles * KeyRows::floats(width));

    // KeyRows is five pointers into the slot of its tile: cheaper to make again than to keep.
    const auto keys_of = [&](const KeyTile& tile) {
      float* p = first_tile + tile.slot * KeyRows::floats(width);
      const int64_t step = kKeys * width;
      return KeyRows{
          p, p + step, p + 2 * step, p + 3 * step, p + 4 * step, tile.end - tile.begin, tile.begin};
    };
    const auto for_family_keys = [&](auto&& f) {
      for (int64_t k = family.key_first; k < family.key_last; ++k) {
        if (&work.families[work.keys[k].family] == &family) f(work.keys[k]);
      }
    };
    for_family_keys([&](const KeyTile& tile) {
      KeyRows keys = keys_of(tile);
      load_keys(keys, tile, kv);
      clear_keys(keys);
    });
    for (int64_t i = family.query_first; i < family.query_last; ++i) {
      const QueryTile& tile = work.queries[i];
      load_queries(queries, tile, kv);
      for_keys_of(tile, [&](int64_t k, bool causal) {
        gradient.add(queries, keys_of(work.keys[k]), causal, true, true);
      });
      store_queries(queries, tile, kv);
    }
    for_family_keys([&](const KeyTile& tile) { store_keys(keys_of(tile), tile, kv); });
  }

  // f(queries, keys, gradient): with room for one tile of each.
  template <class F>
  void with_tiles(F&& f) const {
    Scratch& scratch = thread_scratch();
    scratch.reset(QueryRows::floats(max_rows(), width) + GradientTile::scratch_floats() +
                  KeyRows::floats(width));
    QueryRows queries;
    KeyRows keys;
    queries.take(scratch, max_rows(), width);
    keys.take(scratch, width);
    GradientTile gradient(scratch, D);
    f(queries, keys, gradient);
  }

  void query_task(const QueryTile& tile, int64_t kv) const {
    with_tiles([&](QueryRows& queries, KeyRows& keys, GradientTile& gradient) {
      load_queries(queries, tile, kv);
      for_keys_of(tile, [&](int64_t k, bool causal) {
        load_keys(keys, work.keys[k], kv);
        gradient.add(queries, keys, causal, true, false);
      });
      store_queries(queries, tile, kv);
    });
  }

  void key_task(int64_t key_tile, int64_t kv) const {
    with_tiles([&](QueryRows& queries, KeyRows& keys, GradientTile& gradient) {
      const KeyTile& tile = work.keys[key_tile];
      const Family& family = work.families[tile.family];
      load_keys(keys, tile, kv);
      clear_keys(keys);
      for (int64_t i = family.query_first; i < family.query_last; ++i) {
        const QueryTile& seeing = work.queries[i];
        if (!seeing.sees_own(key_tile) && !seeing.sees_prefix(key_tile)) continue;
        load_queries(queries, seeing, kv);
        gradient.add(queries, keys, seeing.sees_own(key_tile), false, true);
      }
      store_keys(keys, tile, kv);
    });
  }
};

}  // namespace
}  // namespace attention

void attention_backward(Context&, Tensor d_qkv, Tensor delta, Tensor d_o, Tensor o, Tensor lse,
                        Tensor qkv, Tensor segments, int64_t heads, int64_t kv_heads) {
  using namespace attention;
  const int64_t T = qkv.rows(), D = qkv.row_size() / (heads + 2 * kv_heads), G = heads / kv_heads;
  check_segments("attention_backward", segments, qkv.rows());
  const Work& work = plan_work(segments, T, queries_per_tile(G));

  with_dtype(qkv.dtype, [&]<class E>(E*) {
    parallel_rows(T, heads * D * 8, [&](int64_t t) {
      if (!work.covered[t]) std::fill_n(d_qkv.row<E>(t), qkv.row_size(), E(0.0f));
      for (int64_t h = 0; h < heads; ++h) {
        Vec products{};
        const E *a = d_o.row<E>(t) + h * D, *b = o.row<E>(t) + h * D;
        for (int64_t d = 0; work.covered[t] && d < D; d += kLanes) {
          products += load(a + d, D - d) * load(b + d, D - d);
        }
        delta.row<float>(t)[h] = sum(products);
      }
    });
    const Backward<E> pass{d_qkv, delta, d_o, lse, qkv, heads, kv_heads, G, D, round_up(D, kLanes),
                           work};
    const auto tasks = [&](const std::vector<int32_t>& longest_first, auto&& f) {
      parallel_tasks(static_cast<int64_t>(longest_first.size()) * kv_heads,
                     [&](int64_t task) { f(longest_first[task / kv_heads], task % kv_heads); });
    };
    if (prefers_families(work, kv_heads, D)) {
      tasks(work.families_longest_first,
            [&](int32_t f, int64_t kv) { pass.family_task(work.families[f], kv); });
    } else {
      tasks(work.queries_longest_first,
            [&](int32_t q, int64_t kv) { pass.query_task(work.queries[q], kv); });
      tasks(work.keys_longest_first, [&](int32_t k, int64_t kv) { pass.key_task(k, kv); });
    }
  });
}

}  // namespace simper::cpu
