#pragma once
#include <cmath>
#include <limits>

#include "cpu/attention_tiles.h"

// Online softmax over the key tiles of one query tile                       [Dao 2023, alg. 1]
//
//                 keys ──► kKeys = 64     rows: the query rows of a tile, the G heads of a group
//               ┌──────┬──────┬──────┐    stacked as (position, head), as they lie in memory
//   kRows rows  │ full │ full │ diag │    per kRows rows: s = q·kᵀ (in L1), new row maxima m,
//               └──────┴──────┴──────┘    p = exp(s − m), o = o·exp(m_old − m) + p·v
//
//   The sum l of each row is kept as 16 lanes and added up once, at the end. `Products` has the two
//   products: F32Forward below, amx::Forward in attention_amx.h.
namespace simper::cpu::attention {

// The products of the forward with the f32 micro-kernel; q carries the 1/√D.
class F32Forward {
 public:
  static constexpr int64_t kRows = attention::kRows;
  static constexpr int64_t kKeyStep = kLanes;  // keys are computed in multiples of this
  using Probability = float;

  static int64_t floats(int64_t rows, int64_t D) {
    const int64_t width = width_of(D);
    return round_up(rows, kRows) * width + 2 * kKeys * width;
  }
  static int64_t width_of(int64_t D) { return round_up(D, kLanes); }

  F32Forward(Scratch& scratch, int64_t rows, int64_t D) : D_(D), width_(width_of(D)) {
    q_ = scratch.take(round_up(rows, kRows) * width_);
    k_transposed_ = scratch.take(kKeys * width_);
    v_ = scratch.take(kKeys * width_);
    std::fill(q_ + rows * width_, q_ + round_up(rows, kRows) * width_, 0.0f);
  }

  float score_factor() const { return 1.0f; }
  float* probabilities(float* s) { return s; }  // each over its score

  // Stores p = e^x where the second product reads it, and returns it.
  static Vec store_exp(float* p, Vec x) {
    const Vec e = exp(x);
    store(p, e);
    return e;
  }

  template <class T>
  void pack_queries(int64_t row, const T* q, int64_t count) {
    pack(q_ + row * width_, width_, q, D_, count, D_, 1.0f / std::sqrt(static_cast<float>(D_)));
  }
  template <class T>
  void pack_keys(const T* k, const T* v, int64_t stride, int64_t count) {
    pack_transposed(k_transposed_, k, stride, count, D_);
    pack(v_, width_, v, stride, count, D_, 1.0f);
  }
  // s (kRows × keys) = q·kᵀ for the rows from `row` on; `keys` is a multiple of kKeyStep.
  void scores(float* s, int64_t row, int64_t keys) const {
    multiply<Into::kSet, Left::kRows>(s, kKeys, q_ + row * width_, width_, k_transposed_, kKeys, D_,
                                      keys / kLanes);
  }
  // o (kRows × width) += p (kRows × keys) · v
  void add_values(float* o, const float* p, int64_t keys) const {
    multiply<Into::kAdd, Left::kRows>(o, width_, p, kKeys, v_, width_, keys, width_ / kLanes);
  }

 private:
  int64_t D_, width_;
  float *q_, *k_transposed_, *v_;
};

template <class Products>
class OnlineSoftmax {
 public:
  static constexpr int64_t kRows = Products::kRows;

  static int64_t scratch_floats(int64_t rows, int64_t D) {
    const int64_t padded = padded_rows(rows);
    return Products::floats(rows, D) + padded * Products::width_of(D) + padded + kLanes +
           padded * kLanes + kRows * kKeys;
  }

  OnlineSoftmax(Scratch& scratch, int64_t rows, int64_t D)
      : products_(scratch, rows, D),
        rows_(rows),
        D_(D),
        width_(Products::width_of(D)),
        padded_(padded_rows(rows)) {
    o_ = scratch.take(padded_ * width_);
    m_ = scratch.take(padded_ + kLanes);
    l_ = scratch.take(padded_ * kLanes);
    s_ = scratch.take(kRows * kKeys);
    p_ = products_.probabilities(s_);
  }

  // Packs the rows: `heads` of them lie at q_of(position). In a window a row may see no key of the
  // tiles that come first: its maximum then starts from a number, for exp(−inf + inf) is NaN.
  template <class RowsOf>
  void begin(int64_t positions, int64_t heads, RowsOf&& q_of, bool windowed = false) {
    using Limits = std::numeric_limits<float>;
    heads_ = heads;
    for (int64_t i = 0; i < positions; ++i) products_.pack_queries(i * heads, q_of(i), heads);
    std::fill(o_, o_ + padded_ * width_, 0.0f);
    std::fill(m_, m_ + padded_ + kLanes, windowed ? Limits::lowest() : -Limits::infinity());
    std::fill(l_, l_ + padded_ * kLanes, 0.0f);
  }

  // Folds in `count` <= kKeys keys and values, `stride` elements apart.
  template <class T>
  void fold(const T* k, const T* v, int64_t stride, int64_t count, const Band& band) {
    products_.pack_keys(k, v, stride, count);
    for (int64_t r = 0; r < rows_; r += kRows) {
      const int64_t last = std::min(r + kRows, rows_) - 1;
      const int64_t position = r / heads_, last_position = last / heads_;
      const int64_t seen = std::min(count, band.end + last_position);
      if (seen <= 0 || band.first + position >= count) continue;
      const int64_t keys = round_up(seen, Products::kKeyStep), vecs = keys / kLanes;
      products_.scores(s_, r, keys);
      if (count < keys || band.end + position < keys || band.first + last_position > 0) {
        for (int64_t i = 0; i < kRows; ++i) {
          const int64_t at = std::min(r + i, last) / heads_;
          hide(s_ + i * kKeys, vecs, band.first + at, std::min(count, band.end + at));
        }
      }
      softmax(r, vecs);
      products_.add_values(o_ + r * width_, p_, seen);
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
  static void hide(float* s, int64_t vecs, int64_t first, int64_t end) {
    for (int64_t v = first > 0 || end < 0 ? 0 : end / kLanes; v < vecs; ++v) {
      store(s + v * kLanes, keep_visible(load(s + v * kLanes), v * kLanes, first, end,
                                         -std::numeric_limits<float>::infinity()));
    }
  }

  // p = exp(s − m) for rows [r, r + kRows), with m, l and o brought to the new maxima.
  void softmax(int64_t r, int64_t vecs) {
    const float factor = products_.score_factor();
    alignas(64) float shrink[round_up(kRows, kLanes)];
    std::memcpy(shrink, m_ + r, sizeof shrink);  // past kRows they are read, not used
    for (int64_t i = 0; i < kRows; ++i) {
      Vec best = load(s_ + i * kKeys);
      for (int64_t v = 1; v < vecs; ++v) best = max(best, load(s_ + i * kKeys + v * kLanes));
      m_[r + i] = std::max(m_[r + i], max(best) * factor);
    }
    for (int64_t i = 0; i < kRows; i += kLanes) {
      store(shrink + i, exp(load(shrink + i) - load(m_ + r + i)));
    }
    for (int64_t i = 0; i < kRows; ++i) {
      const Vec m = splat(m_[r + i]);
      Vec l = load(l_ + (r + i) * kLanes) * shrink[i];
      for (int64_t v = 0; v < vecs; ++v) {
        const int64_t at = i * kKeys + v * kLanes;
        l += Products::store_exp(p_ + at, load(s_ + at) * factor - m);
      }
      store(l_ + (r + i) * kLanes, l);
      if (shrink[i] == 1.0f)
        continue;  // the maximum stands, as it mostly does after the first tile
      float* o = o_ + (r + i) * width_;
      for (int64_t d = 0; d < width_; d += kLanes) store(o + d, load(o + d) * shrink[i]);
    }
  }

  static int64_t padded_rows(int64_t rows) { return round_up(rows, std::max(kRows, kLanes)); }

  Products products_;
  int64_t rows_, D_, width_, padded_, heads_ = 1;
  float *o_, *m_, *l_, *s_;
  typename Products::Probability* p_;
};

}  // namespace simper::cpu::attention
