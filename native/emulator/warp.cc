// What the lanes of a warp compute together. Layouts of fragments: PTX ISA, "Matrix fragments for
// mma.m16n8k16" and "ldmatrix".
#include "emulator/warp.h"

#include <bit>

namespace simper::simt {
namespace {

void shuffle(Exchange* const (&lanes)[32]) {
  for (Exchange* lane : lanes) {
    const Exchange& source = *lanes[lane->lane];
    lane->out[0] = source.in[0];
    lane->out[1] = source.in[1];
  }
}

void ballot(Exchange* const (&lanes)[32]) {
  uint32_t votes = 0;
  for (int i = 0; i < 32; ++i) votes |= (lanes[i]->in[0] & 1u) << i;
  for (Exchange* lane : lanes) lane->out[0] = votes;
}

uint32_t half(const Exchange& row, int column) {
  return row.in[column / 2] >> (column % 2 * 16) & 0xffffu;
}

// Lane 8·m + r brings row r of matrix m; lane 4·r + c takes columns 2c and 2c + 1 of row r of each,
// or of the transposed matrices.
void load_matrix(Exchange* const (&lanes)[32], bool transposed) {
  for (int i = 0; i < 32; ++i) {
    for (int m = 0; m < 4; ++m) {
      const int r = i / 4, c = i % 4 * 2;
      Exchange* const* rows = lanes + 8 * m;
      lanes[i]->out[m] =
          transposed ? half(*rows[c], r) | half(*rows[c + 1], r) << 16 : rows[r]->in[c / 2];
    }
  }
}

// A matrix is read in one pass when its 8 rows of 16 bytes fall into different groups of 4 banks,
// or are the same row.
int64_t bank_conflicts(Exchange* const (&lanes)[32]) {
  int64_t extra = 0;
  for (int m = 0; m < 4; ++m) {
    const void* first[8] = {};  // row that a group of banks is read for
    for (int r = 0; r < 8; ++r) {
      const void* row = lanes[8 * m + r]->shared;
      const void*& known = first[reinterpret_cast<uintptr_t>(row) / 16 % 8];
      if (known == nullptr) known = row;
      extra += known != row;
    }
  }
  return extra;
}

float low(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
float high(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

// Lane 4·g + t holds of a (16,16) the columns 2t, 2t+1 and 2t+8, 2t+9 of rows g and g+8, of b
// (16,8) the same rows of column g, and of c (16,8) the columns 2t, 2t+1 of rows g and g+8.
void mma(Exchange* const (&lanes)[32]) {
  using Row = float __attribute__((vector_size(32)));
  float a[16][16];
  union {
    float element[16][8];
    Row row[16];
  } b;
  for (int i = 0; i < 32; ++i) {
    const int g = i / 4, t = i % 4 * 2;
    const uint32_t* in = lanes[i]->in;
    for (int q = 0; q < 4; ++q) {
      a[g + 8 * (q % 2)][t + 8 * (q / 2)] = low(in[q]);
      a[g + 8 * (q % 2)][t + 8 * (q / 2) + 1] = high(in[q]);
    }
    for (int q = 0; q < 2; ++q) {
      b.element[t + 8 * q][g] = low(in[4 + q]);
      b.element[t + 8 * q + 1][g] = high(in[4 + q]);
    }
  }
  for (int i = 0; i < 16; ++i) {
    Row sum = {};
    for (int k = 0; k < 16; ++k) sum += a[i][k] * b.row[k];
    for (int j = 0; j < 8; ++j) {
      uint32_t& out = lanes[i % 8 * 4 + j / 2]->out[i / 8 * 2 + j % 2];
      out = std::bit_cast<uint32_t>(std::bit_cast<float>(out) + sum[j]);
    }
  }
}

}  // namespace

void perform(Collective kind, Exchange* const (&lanes)[32], Counters& counters) {
  ++counters.collectives;
  switch (kind) {
    case Collective::none:
    case Collective::sync_warp:
      return;
    case Collective::shuffle:
      return shuffle(lanes);
    case Collective::ballot:
      return ballot(lanes);
    case Collective::load_matrix:
    case Collective::load_matrix_transposed:
      ++counters.load_matrix;
      counters.bank_conflicts += bank_conflicts(lanes);
      return load_matrix(lanes, kind == Collective::load_matrix_transposed);
    case Collective::mma:
      ++counters.mma;
      return mma(lanes);
  }
}

}  // namespace simper::simt
