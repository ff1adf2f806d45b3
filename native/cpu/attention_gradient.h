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
//   bits from every schedule. Here with the f32 micro-kernel, in attention_amx_gradient.h with AMX.
namespace simper::cpu::attention {

constexpr int64_t kChunk = 64;

// Query rows, stacked as (position, head).
struct QueryRange {
  float *lse, *delta;
  int64_t rows, begin, heads;  // `begin` is the first position, `heads` the G of (position, head)
};

struct KeyRange {
  int64_t count, begin;
};

// The keys [first, end) of a tile that row r sees; none of them if end <= 0 or first >= count.
struct Seen {
  int64_t first = 0, end = kKeys;
  Seen() = default;
  Seen(const QueryRange& q, const KeyRange& keys, const Band& band, int64_t r)
      : first(band.first + r / q.heads), end(std::min(keys.count, band.end + r / q.heads)) {}
};

// The rows [first, end) that see one of the keys [key, key + step), as far as the tile has them.
struct Seeing {
  int64_t first, end;
  Seeing(const QueryRange& q, const KeyRange& keys, const Band& band, int64_t key, int64_t step)
      : first(std::max<int64_t>(0, key + 1 - band.end) * q.heads),
        end((std::min(key + step, keys.count) - band.first) * q.heads) {}
};

class F32Gradient {
 public:
  // Packed query rows of `width` floats; q carries the 1/√D.
  struct Queries : QueryRange {
    float *q, *d_o, *dq;
    int64_t D, width;

    static int64_t floats(int64_t rows, int64_t D) {
      const int64_t padded = round_up(rows, kLanes);
      return 3 * padded * round_up(D, kLanes) + 2 * padded;
    }
    Queries(Scratch& scratch, int64_t max_rows, int64_t D) : D(D), width(round_up(D, kLanes)) {
      const int64_t padded = round_up(max_rows, kLanes);
      for (float** p : {&q, &d_o, &dq}) *p = scratch.take(padded * width);
      for (float** p : {&lse, &delta}) *p = scratch.take(padded);
    }
    template <class T>
    void load(int64_t r, const T* q_rows, const T* d_o_rows, int64_t count) {
      pack(q + r * width, width, q_rows, D, count, D, scale());
      pack(d_o + r * width, width, d_o_rows, D, count, D, 1.0f);
    }
    // After the last row: zeros where a step of kRows reads past it, and dq = 0.
    void finish_loading() {
      const int64_t padded = round_up(rows, kLanes);
      for (float* p : {q, d_o}) std::fill(p + rows * width, p + padded * width, 0.0f);
      for (float* p : {lse, delta}) std::fill(p + rows, p + padded, 0.0f);
      std::fill(dq, dq + padded * width, 0.0f);
    }
    template <class T>
    void store(T* to, int64_t r, int64_t count) const {
      unpack(to, D, dq + r * width, width, count, D, scale());
    }
    float scale() const { return 1.0f / std::sqrt(static_cast<float>(D)); }
  };

  // Packed keys of a tile and their gradients, in floats(D) floats of the caller.
  struct Keys : KeyRange {
    float *k, *k_transposed, *v_transposed, *dk, *dv;
    int64_t D, width;

    static int64_t floats(int64_t D) { return 5 * kKeys * round_up(D, kLanes); }
    Keys(float* memory, int64_t D, KeyRange range)
        : KeyRange(range), D(D), width(round_up(D, kLanes)) {
      for (float** p : {&k, &k_transposed, &v_transposed, &dk, &dv}) {
        *p = memory;
        memory += kKeys * width;
      }
    }
    template <class T>
    void load(const T* k_rows, const T* v_rows, int64_t stride) {
      pack(k, width, k_rows, stride, count, D, 1.0f);
      pack_transposed(k_transposed, k_rows, stride, count, D);
      pack_transposed(v_transposed, v_rows, stride, count, D);
    }
    void clear() {
      std::fill(dk, dk + kKeys * width, 0.0f);
      std::fill(dv, dv + kKeys * width, 0.0f);
    }
    template <class T>
    void store(T* dk_rows, T* dv_rows, int64_t stride) const {
      unpack(dk_rows, stride, dk, width, count, D, 1.0f);
      unpack(dv_rows, stride, dv, width, count, D, 1.0f);
    }
  };

  static int64_t scratch_floats() { return 2 * kChunk * kKeys; }

  F32Gradient(Scratch& scratch, int64_t D) : D_(D), width_(round_up(D, kLanes)) {
    p_ = scratch.take(kChunk * kKeys);
    ds_ = scratch.take(kChunk * kKeys);
  }

  void add(const Queries& q, const Keys& keys, const Band& band, bool want_queries,
           bool want_keys) {
    for (int64_t chunk = 0; chunk < q.rows; chunk += kChunk) {
      const int64_t end = std::min(chunk + kChunk, q.rows);
      for (int64_t r = chunk; r < end; r += kRows) {
        const int64_t last = std::min(r + kRows, end) - 1;
        const int64_t seen = Seen(q, keys, band, last).end;
        if (seen <= 0 || Seen(q, keys, band, r).first >= keys.count) continue;
        float* ds = ds_ + (r - chunk) * kKeys;
        scores(q, keys, band, r, last, chunk, seen);
        if (want_queries) {
          multiply<Into::kAdd, Left::kRows>(q.dq + r * width_, width_, ds, kKeys, keys.k, width_,
                                            seen, width_ / kLanes);
        }
      }
      if (!want_keys) continue;
      for (int64_t key = 0; key < keys.count; key += kRows) {
        // What these rows do not see of this step of kRows keys is masked, not absent.
        const Seeing seeing(q, keys, band, key, kRows);
        const int64_t first = std::max(chunk, seeing.first);
        const int64_t depth = std::min(end, seeing.end) - first;
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
  // p and ds of the rows [r, last], kRows with the padding, in whole vectors up to key `seen`; 0
  // where a row does not see the key.
  void scores(const Queries& q, const Keys& keys, const Band& band, int64_t r, int64_t last,
              int64_t chunk, int64_t seen) {
    float *p = p_ + (r - chunk) * kKeys, *ds = ds_ + (r - chunk) * kKeys;
    const int64_t vecs = (seen + kLanes - 1) / kLanes;
    multiply<Into::kSet, Left::kRows>(p, kKeys, q.q + r * width_, width_, keys.k_transposed, kKeys,
                                      D_, vecs);
    multiply<Into::kSet, Left::kRows>(ds, kKeys, q.d_o + r * width_, width_, keys.v_transposed,
                                      kKeys, D_, vecs);
    const bool masked =
        Seen(q, keys, band, r).end < vecs * kLanes || Seen(q, keys, band, last).first > 0;
    for (int64_t i = 0; i < kRows; ++i, p += kKeys, ds += kKeys) {
      const Vec lse = splat(q.lse[r + i]), delta = splat(q.delta[r + i]);
      const Seen own = masked ? Seen(q, keys, band, r + i) : Seen();
      for (int64_t v = 0; v < vecs; ++v) {
        Vec probability = exp(load(p + v * kLanes) - lse);
        if (masked) probability = keep_visible(probability, v * kLanes, own.first, own.end, 0.0f);
        store(p + v * kLanes, probability);
        store(ds + v * kLanes, probability * (load(ds + v * kLanes) - delta));
      }
    }
  }

  int64_t D_, width_;
  float *p_, *ds_;
};

}  // namespace simper::cpu::attention
