#pragma once
// The work lists of attention, cut on the device from the segments there: the host never reads
// them.
//
//            prompt │ chosen │ rejected       query tile: rows of one segment; sees the prefix of
//   prompt     ◣    │        │                the segment whole and its own keys up to the
//   diagonal. chosen     ■    │   ◣    │                key tile  : rows of one segment that the
//   same prefixes rejected   ■    │        │   ◣            cover; is seen by its own segment from
//   the diagonal
//                                             on, and whole by each segment that has it as prefix.
//
//   A tile never straddles a boundary, so rows of two sequences never meet in one product: a NaN
//   stays where it is. Blank tiles are on no list. Lists are sorted, longest first. With a window
//   the ranges of a tile begin at the first key that its first row sees, and end at the last row
//   that sees its last key; what lies between is for attention_generic.cu to mask.
#include <cstdint>

#include "cuda/context.h"
#include "cuda/dispatch.h"
#include "cuda/rows_view.h"

namespace simper::cuda::attention {

// Row t sees the keys [prefix_start, prefix_end) and [start, t], in a window those with
// j > t − window of its own and j > t + shift() − window of the prefix.
struct alignas(16) Segment {
  int32_t start, end, prefix_start, prefix_end;

  // From a row's place to its place in a prefix that goes on.
  SIMT_DEVICE int32_t shift() const { return prefix_end - start; }
};

constexpr int32_t kNoWindow = 1 << 30;

struct alignas(16) QueryTile {
  int32_t begin, end;
  int32_t prefix_start, prefix_end;
  int32_t own_start;
  int32_t cost;
  int32_t shift;  // of the segment
  int32_t unused;
};

struct alignas(16) KeyTile {
  int32_t begin, end;
  int32_t own_end;                      // the queries [begin, own_end) see it causally
  int32_t first_visitor, last_visitor;  // the segments that have it as prefix are in this range
  int32_t cost;
  int32_t unused[2];

  SIMT_DEVICE bool is_prefix_of(const Segment& s) const {
    return s.prefix_start <= begin && end <= s.prefix_end && s.start < s.end;
  }
};

// Device memory of the op that runs.
struct Plan {
  Segment* segments;  // as given; those out of range are without rows
  int32_t segment_count;
  int32_t* counts;     // {query tiles, key tiles}
  QueryTile* queries;  // longest first
  KeyTile* keys;
  int32_t query_limit, key_limit;  // at most so many tiles
  int32_t query_rows, key_rows;    // rows of a full tile; key_rows = 0: no key tiles wanted
  int32_t window;                  // kNoWindow: none
};

// What rows that no segment covers get: zeros in these tensors (T, columns).
struct Outputs {
  Tensor values;   // o or d_qkv
  Tensor numbers;  // lse or delta
};

// Enqueues the planning. Slots kFirstPlanSlot and following of the scratch are in use afterwards.
constexpr int kFirstPlanSlot = 0, kFirstFreeSlot = 4;
Plan plan_work(CudaContext& cuda, const char* op, const Tensor& segments, int64_t T, int query_rows,
               int key_rows, int32_t window, const Outputs& outputs);

}  // namespace simper::cuda::attention
