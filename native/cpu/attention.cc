// Flash-attention forward on packed segments with shared prefixes and grouped heads.   [Dao 2023,
// alg. 1]
//   o = softmax(q·kᵀ/√D + mask)·v        lse = logsumexp of each row, kept for the backward
//
//   One task: a query tile (about 192 rows: positions × the G query heads of one key/value head)
//   over all key tiles it sees, in the order of rows; tasks go out longest first. Key tiles outside
//   the window of every row are not visited; in those at its edge, what is outside is masked.
//   attention_work.h cuts the tiles, attention_online.h has the algorithm, attention_tiles.h the
//   f32 micro-kernel, attention_amx.h the bf16 tiles that bf16 inputs take where the CPU has them
//   (p is rounded to bf16 before p·v, all else stays f32). No (T,T) matrix exists.
//
//   Cost: 4·D flops per visible couple (query, key) and query head, and one exponential; diagonals
//   are rounded up to 16 keys, to 32 with AMX. Measured on one core of a shared Xeon (AVX-512,
//   AMX), D = 64, H = 9, K = 3, GFLOP/s: four pairs 180 + 2·220 f32 94, bf16 102 without AMX, 290
//   with it; one segment of 2000 bf16 120 and 425. Each output element is computed by one task in a
//   fixed order: equal bits for any number of threads. Limits: any even D (padded to 16 lanes
//   inside, to 32 with AMX), tuned for 16 to 128.
#include "cpu/attention_units.h"
#include "cpu/attention_work.h"
#include "cpu/check.h"
#include "cpu/parallel.h"
#include "ops/ops.h"

namespace simper::cpu {

void attention_forward(Context&, Tensor o, Tensor lse, Tensor qkv, Tensor segments, int64_t heads,
                       int64_t kv_heads, int64_t window) {
  using namespace attention;
  const int64_t T = qkv.rows(), D = qkv.row_size() / (heads + 2 * kv_heads), G = heads / kv_heads;
  check_segments("attention_forward", segments, qkv.rows());
  const Work& work = plan_work(segments, T, queries_per_tile(G), window);

  with_unit(qkv.dtype, [&]<class E, class Unit>(E*, Unit) {
    using Softmax = OnlineSoftmax<typename Unit::Forward>;
    parallel_rows(T, heads * D, [&](int64_t t) {
      if (work.covered[t]) return;
      std::fill_n(o.row<E>(t), heads * D, E(0.0f));
      std::fill_n(lse.row<float>(t), heads, 0.0f);
    });
    parallel_tasks(static_cast<int64_t>(work.queries.size()) * kv_heads, [&](int64_t task) {
      const QueryTile& tile = work.queries[work.queries_longest_first[task / kv_heads]];
      const int64_t kv = task % kv_heads, positions = tile.end - tile.begin, rows = positions * G;
      const auto q_of = [&](int64_t i) { return qkv.row<E>(tile.begin + i) + kv * G * D; };
      const auto o_of = [&](int64_t i) { return o.row<E>(tile.begin + i) + kv * G * D; };
      const auto lse_of = [&](int64_t i) { return lse.row<float>(tile.begin + i) + kv * G; };
      Scratch& scratch = thread_scratch();
      scratch.reset(Softmax::scratch_floats(rows, D));
      Softmax softmax(scratch, rows, D);
      softmax.begin(positions, G, q_of, window > 0);

      const auto fold = [&](int64_t first, int64_t last, bool own) {
        for (int64_t i = first; i < last; ++i) {
          const KeyTile& keys = work.keys[i];
          const E* k = qkv.row<E>(keys.begin) + (heads + kv) * D;
          softmax.fold(k, k + kv_heads * D, qkv.row_stride, keys.end - keys.begin,
                       work.band(tile, keys, own));
        }
      };
      fold(tile.prefix_first, tile.prefix_last, false);
      fold(tile.own_first, tile.own_last, true);
      softmax.finish(positions, G, o_of, lse_of);
    });
  });
}

}  // namespace simper::cpu
