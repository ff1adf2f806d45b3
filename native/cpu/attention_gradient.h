#pragma once
#include <cmath>

#include "cpu/attention_tiles.h"

// The backward of one query tile against one key tile                                  [Dao 2023,
// alg. 2]
//   p = exp(s − lse)   dp = do·vᵀ   ds = p∘(dp − delta)
//   dv += pᵀ·do        dk += dsᵀ·(q/√D)        dq += ds·k, times 1/√D when it is written
//
//   Rows go in chunks of kChunk, so that p and ds (16 KiB each) stay in L1 and L2 between the
//   products that use them. The chunks of a tile are the same wherever it is called from: equal
//   bits from every schedule.
namespace simper::cpu::attention {

constexpr int64_t kChunk = 64;

// Packed query rows, stacked as (position, head); `width` floats each.
struct QueryRows {
  float *q, *d_o, *dq;  // q carries the 1/√D
  float *lse, *delta;
  int64_t rows, begin, heads;  // `begin` is the first position, `heads` the G of (position, head)

  static int64_t floats(int64_t rows, int64_t width) {
    const int64_t padded = round_up(rows, kLanes);
    return 3 * padded * width + 2 * padded;
  }
  void take(Scratch& scratch, int64_t max_rows, int64_t width) {
    const int64_t padded = round_up(max_rows, kLanes);
    for (float** p : {&q, &d_o, &dq}) *p = scratch.take(padded * width);
    for (float** p : {&lse, &delta}) *p = scratch.take(padded);
  }
};

// Packed keys of a tile and their gradients.
struct KeyRows {
  float *k, *k_transposed, *v_transposed, *dk, *dv;
  int64_t count, begin;

  static int64_t floats(int64_t width) { return 5 * kKeys * width; }
  void take(Scratch& scratch, int64_t width) {
    for (float** p : {&k, &k_transposed, &v_transposed, &dk, &dv}) *p = scratch.take(kKeys * width);
  }
};

class GradientTile {
 public:
  static int64_t scratch_floats() { return 2 * kChunk * kKeys; }

  GradientTile(Scratch& scratch, int64_t D) : D_(D), width_(round_up(D, kLanes)) {
    p_ = scratch.take(kChunk * kKeys);
    ds_ = scratch.take(kChunk * kKeys);
  }

  // `causal`: a key is seen from its own position on; else by every row (the tile lies in the
  // prefix).
  void add(const QueryRows& q, const KeyRows& keys, bool causal, bool want_queries,
           bool want_keys) {
    for (int64_t chunk = 0; chunk < q.rows; chunk += kChunk) {
      const int64_t end = std::min(chunk + kChunk, q.rows);
      for (int64_t r = chunk; r < end; r += kRows) {
        const int64_t last = std::min(r + kRows, end) - 1;
        const int64_t seen = causal ? visible(q, keys, last) : keys.count;
        if (seen <= 0) continue;
        float* ds = ds_ + (r - chunk) * kKeys;
        scores(q, keys, r, chunk, seen, causal);
        if (want_queries) {
          multiply<Into::kAdd, Left::kRows>(q.dq + r * width_, width_, ds, kKeys, keys.k, width_,
                                            seen, width_ / kLanes);
        }
      }
      if (!want_keys) continue;
      for (int64_t key = 0; key < keys.count; key += kRows) {
        // The first row that sees `key`; the others of this step of kRows keys are masked, not
        // absent.
        const int64_t behind = causal ? std::max<int64_t>(0, keys.begin + key - q.begin) : 0;
        const int64_t first = std::max(chunk, behind * q.heads), depth = end - first;
        if (depth <= 0) continue;
        const int64_t at = (first - chunk) * kKeys + key;
        multiply<Into::kAdd, Left::kColumns>(keys.dv + key * width_, width_, p_ + at, kKeys,
                                             q.d_o + first * width_, width_, depth,
                                             width_ / kLanes);
        multiply<Into::kAdd, Left::kColumns>(keys.dk + key * width_, width_, ds_ + at, kKeys,
                                             q.q + first * width_, width_, depth, width_ / kLanes);
      }
    }
  }

 private:
  static int64_t visible(const QueryRows& q, const KeyRows& keys, int64_t r) {
    return std::min(keys.count, q.begin + r / q.heads + 1 - keys.begin);
  }

  // p and ds of kRows rows from r on, in whole vectors; 0 where a row does not see the key.
  void scores(const QueryRows& q, const KeyRows& keys, int64_t r, int64_t chunk, int64_t seen,
              bool causal) {
    float *p = p_ + (r - chunk) * kKeys, *ds = ds_ + (r - chunk) * kKeys;
    const int64_t vecs = (seen + kLanes - 1) / kLanes;
    multiply<Into::kSet, Left::kRows>(p, kKeys, q.q + r * width_, width_, keys.k_transposed, kKeys,
                                      D_, vecs);
    multiply<Into::kSet, Left::kRows>(ds, kKeys, q.d_o + r * width_, width_, keys.v_transposed,
                                      kKeys, D_, vecs);
    const bool masked =
        keys.count < vecs * kLanes || (causal && visible(q, keys, r) < vecs * kLanes);
    for (int64_t i = 0; i < kRows; ++i, p += kKeys, ds += kKeys) {
      const Vec lse = splat(q.lse[r + i]), delta = splat(q.delta[r + i]);
      const int64_t count = masked && causal ? visible(q, keys, r + i) : keys.count;
      for (int64_t v = 0; v < vecs; ++v) {
        Vec probability = exp(load(p + v * kLanes) - lse);
        if (masked) probability = keep_visible(probability, v * kLanes, count, 0.0f);
        store(p + v * kLanes, probability);
        store(ds + v * kLanes, probability * (load(ds + v * kLanes) - delta));
      }
    }
  }

  int64_t D_, width_;
  float *p_, *ds_;
};

}  // namespace simper::cpu::attention
