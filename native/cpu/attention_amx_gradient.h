#pragma once
#include "cpu/attention_amx.h"
#include "cpu/attention_gradient.h"

// The backward of one query tile against one key tile, on AMX: attention_gradient.h has the formula
// and the chunks.
//
//   s  = q·kᵀ    dp = do·vᵀ     32 rows × 64 keys of f32 at a time, 8 KiB each
//   dq += ds·k                  the same rows; ds rounded to bf16 as it lies
//   dvᵀ += doᵀ·p  dkᵀ += qᵀ·ds  once per chunk; p and ds in pairs of rows, rounded to bf16
//
//   The gradients of keys are summed transposed, since p and ds have to be the right operands (two
//   rows make a row of pairs) unless each of them is transposed; that is done to q and do, once per
//   query tile. All sums, lse and delta stay f32.
#ifdef SIMPER_ATTENTION_AMX
namespace simper::cpu::attention::amx {

// Rows of a chunk: longer than with f32, for a step of depth costs less than fetching the sums.
constexpr int64_t kLongChunk = 192;

// {low, high} lane by lane.
inline void store_pairs(Pair* to, VecU16 low, VecU16 high) {
  const auto wide = [](VecU16 half) {
    return std::bit_cast<VecU32>(_mm512_maskz_cvtepu16_epi32(0xffff, std::bit_cast<__m256i>(half)));
  };
  const VecU32 pairs = wide(low) | wide(high) << 16;
  std::memcpy(to, &pairs, sizeof pairs);
}

// to (width, ld) = transpose of from (rows, width); both sizes are whole blocks.
inline void transpose_rows(bf16* to, int64_t ld, const bf16* from, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i += kBlock) {
    for (int64_t d = 0; d < width; d += kLanes) {
      Vec row[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        row[j] = load_row_pairs(from, width, i + 2 * j, d, rows, width);
      }
      transpose(row);
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        std::memcpy(to + (d + j) * ld + i, &row[j], sizeof row[j]);
      }
    }
  }
}

// to (count, D) = factor · transpose of from (D, kKeys).
inline void unpack_transposed(bf16* to, int64_t stride, const float* from, int64_t count, int64_t D,
                              float factor) {
  for (int64_t i = 0; i < count; i += kLanes) {
    for (int64_t d = 0; d < D; d += kLanes) {
      Vec row[kLanes];
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) row[j] = load(from + (d + j) * kKeys + i);
      transpose(row);
#pragma GCC unroll 16
      for (int64_t j = 0; j < kLanes; ++j) {
        if (i + j < count) store(to + (i + j) * stride + d, row[j] * factor, D - d);
      }
    }
  }
}

class Gradient {
 public:
  // Packed query rows, padded to blocks; q does not carry the 1/√D, for bf16 has no room for it.
  struct Queries : QueryRange {
    bf16 *q, *d_o;                        // (rows, width)
    bf16 *q_transposed, *d_o_transposed;  // (width, padded)
    float* dq;                            // (rows, width)
    int64_t D, width, padded;

    static int64_t floats(int64_t rows, int64_t D) {
      const int64_t padded = round_up(rows, kBlock);
      return 3 * padded * round_up(D, kBlock) + 2 * padded;
    }
    Queries(Scratch& scratch, int64_t max_rows, int64_t D)
        : D(D), width(round_up(D, kBlock)), padded(round_up(max_rows, kBlock)) {
      for (bf16** p : {&q, &d_o, &q_transposed, &d_o_transposed}) {
        *p = scratch.take<bf16>(padded * width);
      }
      dq = scratch.take(padded * width);
      for (float** p : {&lse, &delta}) *p = scratch.take(padded);
    }
    void load(int64_t r, const bf16* q_rows, const bf16* d_o_rows, int64_t count) {
      pack_rows(q + r * width, width, q_rows, D, count, D);
      pack_rows(d_o + r * width, width, d_o_rows, D, count, D);
    }
    // After the last row: zeros up to a whole block, the transposes, and dq = 0.
    void finish_loading() {
      const int64_t whole = round_up(rows, kBlock);
      for (bf16* p : {q, d_o}) std::fill(p + rows * width, p + whole * width, bf16(0.0f));
      for (float* p : {lse, delta}) std::fill(p + rows, p + whole, 0.0f);
      transpose_rows(q_transposed, padded, q, whole, width);
      transpose_rows(d_o_transposed, padded, d_o, whole, width);
      std::fill(dq, dq + whole * width, 0.0f);
    }
    void store(bf16* to, int64_t r, int64_t count) const {
      unpack(to, D, dq + r * width, width, count, D, 1.0f / std::sqrt(static_cast<float>(D)));
    }
  };

  // Packed keys of a tile and their gradients, in floats(D) floats of the caller.
  struct Keys : KeyRange {
    Pair *k_transposed, *v_transposed;     // (pairs of width, kKeys)
    Pair* k;                               // (pairs of keys, width)
    float *dk_transposed, *dv_transposed;  // (width, kKeys)
    int64_t D, width;

    static int64_t floats(int64_t D) { return 7 * kKeys / 2 * round_up(D, kBlock); }
    Keys(float* memory, int64_t D, KeyRange range)
        : KeyRange(range), D(D), width(round_up(D, kBlock)) {
      const int64_t pairs = kKeys / 2 * width;
      for (Pair** p : {&k_transposed, &v_transposed, &k}) {
        *p = reinterpret_cast<Pair*>(memory);
        memory += pairs;
      }
      dk_transposed = memory;
      dv_transposed = memory + 2 * pairs;
    }
    void load(const bf16* k_rows, const bf16* v_rows, int64_t stride) {
      pack_transposed_pairs(k_transposed, kKeys, k_rows, stride, count, D);
      pack_transposed_pairs(v_transposed, kKeys, v_rows, stride, count, D);
      pack_row_pairs(k, width, k_rows, stride, count, D);
    }
    void clear() {
      std::fill(dk_transposed, dk_transposed + kKeys * width, 0.0f);
      std::fill(dv_transposed, dv_transposed + kKeys * width, 0.0f);
    }
    void store(bf16* dk, bf16* dv, int64_t stride) const {
      const float scale = 1.0f / std::sqrt(static_cast<float>(D));
      unpack_transposed(dk, stride, dk_transposed, count, D, scale);
      unpack_transposed(dv, stride, dv_transposed, count, D, 1.0f);
    }
  };

  static int64_t scratch_floats() {
    return 2 * kBlock * kKeys + kBlock * kKeys / 2 + kLongChunk * kKeys;
  }

  Gradient(Scratch& scratch, int64_t D) : scale_(1.0f / std::sqrt(static_cast<float>(D))) {
    s_ = scratch.take(kBlock * kKeys);
    dp_ = scratch.take(kBlock * kKeys);
    ds_rows_ = scratch.take<bf16>(kBlock * kKeys);
    p_ = scratch.take<Pair>(kLongChunk / 2 * kKeys);
    ds_ = scratch.take<Pair>(kLongChunk / 2 * kKeys);
  }

  void add(const Queries& q, const Keys& keys, const Band& band, bool want_queries,
           bool want_keys) {
    for (int64_t chunk = 0; chunk < q.rows; chunk += kLongChunk) {
      const int64_t end = std::min(chunk + kLongChunk, q.rows);
      for (int64_t r = chunk; r < end; r += kBlock) {
        const int64_t last = std::min(r + kBlock, end) - 1;
        const int64_t seen = Seen(q, keys, band, last).end;
        if (seen <= 0 || Seen(q, keys, band, r).first >= keys.count) continue;
        const int64_t columns = round_up(seen, kBlock);
        scores(q, keys, band, r, last, chunk, columns);
        if (want_queries) {
          multiply<Into::kAdd>(q.dq + r * q.width, q.width, ds_rows_, kKeys, keys.k, q.width,
                               columns, q.width);
        }
      }
      if (!want_keys) continue;
      for (int64_t key = 0; key < keys.count; key += kBlock) {
        // Whole blocks of rows, from that of the first one that sees a key of this step to that of
        // the last; what they do not see is masked.
        const Seeing seeing(q, keys, band, key, kBlock);
        const int64_t last_end = std::min(end, seeing.end);
        if (std::max(chunk, seeing.first) >= last_end) continue;
        const int64_t first = std::max(chunk, seeing.first / kBlock * kBlock);
        const int64_t at = (first - chunk) / 2 * kKeys + key;
        const int64_t depth = round_up(last_end - first, kBlock);
        for (int64_t d = 0; d < q.width; d += kBlock) {
          multiply_block<Into::kAdd>(keys.dv_transposed + d * kKeys + key, kKeys,
                                     q.d_o_transposed + d * q.padded + first, q.padded, p_ + at,
                                     kKeys, depth);
          multiply_block<Into::kAdd>(keys.dk_transposed + d * kKeys + key, kKeys,
                                     q.q_transposed + d * q.padded + first, q.padded, ds_ + at,
                                     kKeys, depth);
        }
      }
    }
  }

 private:
  // p and ds of the rows [r, last], a block with the padding, `columns` wide; 0 where a row does
  // not see the key.
  void scores(const Queries& q, const Keys& keys, const Band& band, int64_t r, int64_t last,
              int64_t chunk, int64_t columns) {
    multiply<Into::kSet>(s_, kKeys, q.q + r * q.width, q.width, keys.k_transposed, kKeys, q.width,
                         columns);
    multiply<Into::kSet>(dp_, kKeys, q.d_o + r * q.width, q.width, keys.v_transposed, kKeys,
                         q.width, columns);
    const bool masked = Seen(q, keys, band, r).end < columns || Seen(q, keys, band, last).first > 0;
    if (masked) return weigh<true>(q, keys, band, r, chunk, columns);
    weigh<false>(q, keys, band, r, chunk, columns);
  }

  // p = exp(s − lse) and ds = p∘(dp − delta), rounded.
  template <bool kMasked>
  void weigh(const Queries& q, const Keys& keys, const Band& band, int64_t r, int64_t chunk,
             int64_t columns) {
    for (int64_t i = 0; i < kBlock; i += 2) {
      const int64_t pairs = (r + i - chunk) / 2 * kKeys;
      Seen seen[2];
      for (int64_t j = 0; kMasked && j < 2; ++j) seen[j] = Seen(q, keys, band, r + i + j);
      for (int64_t key = 0; key < columns; key += kLanes) {
        VecU16 p[2], ds[2];
        for (int64_t j : {0, 1}) {
          const int64_t row = r + i + j, at = (i + j) * kKeys + key;
          Vec probability = exp(load(s_ + at) * scale_ - q.lse[row]);
          if constexpr (kMasked) {
            probability = keep_visible(probability, key, seen[j].first, seen[j].end, 0.0f);
          }
          p[j] = round_to_bf16(probability);
          ds[j] = round_to_bf16(probability * (load(dp_ + at) - q.delta[row]));
          std::memcpy(ds_rows_ + at, &ds[j], sizeof ds[j]);
        }
        store_pairs(p_ + pairs + key, p[0], p[1]);
        store_pairs(ds_ + pairs + key, ds[0], ds[1]);
      }
    }
  }

  TileConfiguration tiles_;
  float scale_;
  float *s_, *dp_;
  bf16* ds_rows_;
  Pair *p_, *ds_;
};

}  // namespace simper::cpu::attention::amx
#endif
