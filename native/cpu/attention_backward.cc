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
//                      of the family summed in the thread's scratch (20 bytes × D per row; 14 with
//                      AMX).
//     split            task = (query tile, key/value head) for dq, then (key tile, key/value head)
//     for dk, dv:
//                      s and dp twice, 7 products, but many small tasks. For few or uneven
//                      families.
//
//   The estimate of `prefers_families` picks the faster one. The heads of a group are summed inside
//   a task: no atomics. attention_units.h picks the arithmetic, f32 or AMX tiles, as in the
//   forward. Cost: 2·D flops per product, visible couple (query, key) and query head; one
//   exponential. Measured as in attention.cc, 5 products counted, GFLOP/s: four pairs f32 109, bf16
//   118 without AMX, 385 with it; one segment of 2000 bf16 133 and 565.
#include "cpu/attention_units.h"
#include "cpu/attention_work.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "ops/ops.h"

namespace simper::cpu {
namespace attention {
namespace {

constexpr int64_t kFamilyScratchBytes = 32 << 20;  // a longer family is split, whatever the threads

bool prefers_families(const Work& work, int64_t kv_heads, int64_t key_tile_bytes) {
  const int64_t threads = omp_get_max_threads();
  thread_local std::vector<int64_t> loads;
  loads.assign(threads, 0);
  int64_t total = 0;
  for (const int32_t f : work.families_longest_first) {
    const Family& family = work.families[f];
    if (family.key_tiles * key_tile_bytes > kFamilyScratchBytes) return false;
    for (int64_t kv = 0; kv < kv_heads; ++kv)
      *std::min_element(loads.begin(), loads.end()) += family.cost;
    total += family.cost * kv_heads;
  }
  const int64_t longest = *std::max_element(loads.begin(), loads.end());
  return 5 * longest <=
         7 * total / threads;  // 5 products on the busiest thread, or 7 spread evenly
}

// The tensors of one call and where tiles of them lie. E is their element type, Gradient the
// arithmetic.
template <class E, class Gradient>
struct Backward {
  using Queries = typename Gradient::Queries;
  using Keys = typename Gradient::Keys;

  Tensor d_qkv, delta, d_o, lse, qkv;
  int64_t H, K, G, D;
  const Work& work;

  int64_t max_rows() const { return queries_per_tile(G) * G; }

  void load_queries(Queries& to, const QueryTile& tile, int64_t kv) const {
    to.rows = (tile.end - tile.begin) * G;
    to.begin = tile.begin;
    to.heads = G;
    for (int64_t t = tile.begin; t < tile.end; ++t) {
      const int64_t r = (t - tile.begin) * G;
      to.load(r, qkv.row<E>(t) + kv * G * D, d_o.row<E>(t) + kv * G * D, G);
      std::copy_n(lse.row<float>(t) + kv * G, G, to.lse + r);
      std::copy_n(delta.row<float>(t) + kv * G, G, to.delta + r);
    }
    to.finish_loading();
  }

  void store_queries(const Queries& from, const QueryTile& tile, int64_t kv) const {
    for (int64_t t = tile.begin; t < tile.end; ++t) {
      from.store(d_qkv.row<E>(t) + kv * G * D, (t - tile.begin) * G, G);
    }
  }

  static KeyRange range_of(const KeyTile& tile) { return {tile.end - tile.begin, tile.begin}; }

  void load_keys(Keys& to, const KeyTile& tile, int64_t kv) const {
    const E* k = qkv.row<E>(tile.begin) + (H + kv) * D;
    to.load(k, k + K * D, qkv.row_stride);
  }

  void store_keys(const Keys& from, const KeyTile& tile, int64_t kv) const {
    if (!tile.covered) return;
    E* dk = d_qkv.row<E>(tile.begin) + (H + kv) * D;
    from.store(dk, dk + K * D, d_qkv.row_stride);
  }

  // f(key tile, band) in the order of every sum over keys: the prefix, then the own range.
  template <class F>
  void for_keys_of(const QueryTile& tile, F&& f) const {
    const auto visit = [&](int64_t first, int64_t last, bool own) {
      for (int64_t k = first; k < last; ++k) f(work.keys[k], work.band(tile, work.keys[k], own));
    };
    visit(tile.prefix_first, tile.prefix_last, false);
    visit(tile.own_first, tile.own_last, true);
  }

  int64_t scratch_floats(int64_t key_tiles) const {
    return Queries::floats(max_rows(), D) + Gradient::scratch_floats() +
           key_tiles * Keys::floats(D);
  }

  void family_task(const Family& family, int64_t kv) const {
    Scratch& scratch = thread_scratch();
    scratch.reset(scratch_floats(family.key_tiles));
    Queries queries(scratch, max_rows(), D);
    Gradient gradient(scratch, D);
    float* const first_tile = scratch.take(family.key_tiles * Keys::floats(D));

    // Keys is a few pointers into the slot of its tile: cheaper to make again than to keep.
    const auto keys_of = [&](const KeyTile& tile) {
      return Keys(first_tile + tile.slot * Keys::floats(D), D, range_of(tile));
    };
    const auto for_family_keys = [&](auto&& f) {
      for (int64_t k = family.key_first; k < family.key_last; ++k) {
        if (&work.families[work.keys[k].family] == &family) f(work.keys[k]);
      }
    };
    for_family_keys([&](const KeyTile& tile) {
      Keys keys = keys_of(tile);
      load_keys(keys, tile, kv);
      keys.clear();
    });
    for (int64_t i = family.query_first; i < family.query_last; ++i) {
      const QueryTile& tile = work.queries[i];
      load_queries(queries, tile, kv);
      for_keys_of(tile, [&](const KeyTile& keys, const Band& band) {
        gradient.add(queries, keys_of(keys), band, true, true);
      });
      store_queries(queries, tile, kv);
    }
    for_family_keys([&](const KeyTile& tile) { store_keys(keys_of(tile), tile, kv); });
  }

  void query_task(const QueryTile& tile, int64_t kv) const {
    Scratch& scratch = thread_scratch();
    scratch.reset(scratch_floats(1));
    Queries queries(scratch, max_rows(), D);
    Gradient gradient(scratch, D);
    float* const memory = scratch.take(Keys::floats(D));
    load_queries(queries, tile, kv);
    for_keys_of(tile, [&](const KeyTile& key_tile, const Band& band) {
      Keys keys(memory, D, range_of(key_tile));
      load_keys(keys, key_tile, kv);
      gradient.add(queries, keys, band, true, false);
    });
    store_queries(queries, tile, kv);
  }

  void key_task(int64_t key_tile, int64_t kv) const {
    const KeyTile& tile = work.keys[key_tile];
    const Family& family = work.families[tile.family];
    Scratch& scratch = thread_scratch();
    scratch.reset(scratch_floats(1));
    Queries queries(scratch, max_rows(), D);
    Gradient gradient(scratch, D);
    Keys keys(scratch.take(Keys::floats(D)), D, range_of(tile));
    load_keys(keys, tile, kv);
    keys.clear();
    for (int64_t i = family.query_first; i < family.query_last; ++i) {
      const QueryTile& seeing = work.queries[i];
      const bool in_prefix = seeing.sees_prefix(key_tile), in_own = seeing.sees_own(key_tile);
      if (!in_prefix && !in_own) continue;
      load_queries(queries, seeing, kv);
      // Both, where a prefix lies inside its own segment.
      if (in_prefix) gradient.add(queries, keys, work.band(seeing, tile, false), false, true);
      if (in_own) gradient.add(queries, keys, work.band(seeing, tile, true), false, true);
    }
    store_keys(keys, tile, kv);
  }
};

}  // namespace
}  // namespace attention

void attention_backward(Context&, Tensor d_qkv, Tensor delta, Tensor d_o, Tensor o, Tensor lse,
                        Tensor qkv, Tensor segments, int64_t heads, int64_t kv_heads,
                        int64_t window) {
  using namespace attention;
  const int64_t T = qkv.rows(), D = qkv.row_size() / (heads + 2 * kv_heads), G = heads / kv_heads;
  check_segments("attention_backward", segments, qkv.rows());
  const Work& work = plan_work(segments, T, queries_per_tile(G), window);

  with_unit(qkv.dtype, [&]<class E, class Unit>(E*, Unit) {
    using Gradient = typename Unit::Gradient;
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
    const Backward<E, Gradient> pass{d_qkv, delta, d_o, lse, qkv, heads, kv_heads, G, D, work};
    const auto tasks = [&](const std::vector<int32_t>& longest_first, auto&& f) {
      parallel_tasks(static_cast<int64_t>(longest_first.size()) * kv_heads,
                     [&](int64_t task) { f(longest_first[task / kv_heads], task % kv_heads); });
    };
    if (prefers_families(work, kv_heads, Gradient::Keys::floats(D) * 4)) {
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
