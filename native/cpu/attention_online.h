#pragma once
#include <cmath>
#include <limits>

#include "cpu/attention_tiles.h"

// Online softmax over the key tiles of one query tile                                  [Dao 2023,
// alg. 1]
//
//                 keys ──► kKeys = 64             rows: the query rows of a tile, the G heads of a
//                 group
//               ┌──────┬──────┬──────┐            stacked as (position, head), which is how they
//               lie in memory
//   kRows rows  │ full │ full │ diag │            per kRows rows: s = q·kᵀ (2 KiB, in L1), new row
//   maxima m,
//               └──────┴──────┴──────┘            p = exp(s − m), o = o·exp(m_old − m) + p·v
//
//   The sum l of each row is kept as 16 lanes and added up once, at the end.
namespace simper::cpu::attention {

class OnlineSoftmax {
 public:
  static int64_t scratch_floats(int64_t rows, int64_t D) {
    const int64_t padded = round_up(rows, kLanes), width = round_up(D, kLanes);
    return 2 * padded * width + padded + kLanes + padded * kLanes + 2 * kKeys * width +
           kRows * kKeys;
  }

  OnlineSoftmax(Scratch& scratch, int64_t rows, int64_t D)
      : rows_(rows), D_(D), width_(round_up(D, kLanes)), padded_(round_up(rows, kLanes)) {
    q_ = scratch.take(padded_ * width_);
    o_ = scratch.take(padded_ * width_);
    m_ = scratch.take(padded_ + kLanes);
    l_ = scratch.take(padded_ * kLanes);
    k_transposed_ = scratch.take(kKeys * width_);
    v_ = scratch.take(kKeys * width_);
    s_ = scratch.take(kRows * kKeys);
  }

  // Packs the rows, scaled by 1/√D: `heads` of them lie at q_of(position).
  template <class RowsOf>
  void begin(int64_t positions, int64_t heads, RowsOf&& q_of) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D_));
    for (int64_t i = 0; i < positions; ++i) {
      pack(q_ + i * heads * width_, width_, q_of(i), D_, heads, D_, scale);
    }
    std::fill(q_ + rows_ * width_, q_ + padded_ * width_, 0.0f);
    std::fill(o_, o_ + padded_ * width_, 0.0f);
    std::fill(m_, m_ + padded_ + kLanes, -std::numeric_limits<float>::infinity());
    std::fill(l_, l_ + padded_ * kLanes, 0.0f);
  }

  // Folds in `count` <= kKeys keys and values, `stride` elements apart. Row r sees the first
  // visible(r) of them; visible does not fall with r, and may be above count, or 0 and below.
  template <class T, class Visible>
  void fold(const T* k, const T* v, int64_t stride, int64_t count, Visible&& visible) {
    pack_transposed(k_transposed_, k, stride, count, D_);
    pack(v_, width_, v, stride, count, D_, 1.0f);
    for (int64_t r = 0; r < rows_; r += kRows) {
      const int64_t last = std::min(r + kRows, rows_) - 1;
      const int64_t seen = std::min(count, visible(last));
      if (seen <= 0) continue;
      const int64_t vecs = (seen + kLanes - 1) / kLanes;
      multiply<Into::kSet, Left::kRows>(s_, kKeys, q_ + r * width_, width_, k_transposed_, kKeys,
                                        D_, vecs);
      if (visible(r) < vecs * kLanes || count < vecs * kLanes) {
        for (int64_t i = 0; i < kRows; ++i) {
          hide(s_ + i * kKeys, vecs, std::min(count, visible(std::min(r + i, last))));
        }
      }
      softmax(r, vecs);
      multiply<Into::kAdd, Left::kRows>(o_ + r * width_, width_, s_, kKeys, v_, width_, seen,
                                        width_ / kLanes);
    }
  }

  // o_of(position) = o / l. lse_of(position) = m + log l; it may be null. A row without a key
  // becomes zeros.
  template <class RowsOf, class LseOf>
  void finish(int64_t positions, int64_t heads, RowsOf&& o_of, LseOf&& lse_of) {
    for (int64_t i = 0; i < positions; ++i) {
      float* lse = lse_of(i);
      for (int64_t g = 0; g < heads; ++g) {
        const int64_t r = i * heads + g;
        const float l = sum(load(l_ + r * kLanes));
        unpack(o_of(i) + g * D_, 0, o_ + r * width_, 0, 1, D_, l == 0.0f ? 0.0f : 1.0f / l);
        if (lse) lse[g] = m_[r] + std::log(l);
      }
    }
  }

 private:
  static void hide(float* s, int64_t vecs, int64_t visible) {
    for (int64_t v = visible / kLanes < 0 ? 0 : visible / kLanes; v < vecs; ++v) {
      store(s + v * kLanes, keep_visible(load(s + v * kLanes), v * kLanes, visible,
                                         -std::numeric_limits<float>::infinity()));
    }
  }

  // s = exp(s − m) for rows [r, r + kRows), with m, l and o brought to the new maxima.
  void softmax(int64_t r, int64_t vecs) {
    alignas(64) float shrink[kLanes];
    store(shrink, load(m_ + r));  // kRows lanes count; the others are read, not used
    for (int64_t i = 0; i < kRows; ++i) {
      Vec best = load(s_ + i * kKeys);
      for (int64_t v = 1; v < vecs; ++v) best = max(best, load(s_ + i * kKeys + v * kLanes));
      m_[r + i] = std::max(m_[r + i], max(best));
    }
    store(shrink, exp(load(shrink) - load(m_ + r)));
    for (int64_t i = 0; i < kRows; ++i) {
      const Vec m = splat(m_[r + i]);
      Vec l = load(l_ + (r + i) * kLanes) * shrink[i];
      for (int64_t v = 0; v < vecs; ++v) {
        float* s = s_ + i * kKeys + v * kLanes;
        const Vec p = exp(load(s) - m);
        store(s, p);
        l += p;
      }
      store(l_ + (r + i) * kLanes, l);
      if (shrink[i] == 1.0f)
        continue;  // the maximum stands, as it mostly does after the first tile
      float* o = o_ + (r + i) * width_;
      for (int64_t d = 0; d < width_; d += kLanes) store(o + d, load(o + d) * shrink[i]);
    }
  }

  int64_t rows_, D_, width_, padded_;
  float *q_, *o_, *m_, *l_, *k_transposed_, *v_, *s_;
};

}  // namespace simper::cpu::attention
