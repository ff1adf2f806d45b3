#pragma once
#include <cstdint>
#include <vector>

#include "core/tensor.h"
#include "cpu/attention_tiles.h"

// What attention has to visit, worked out from the segments once per call. Row t of segment {start,
// end, prefix_start, prefix_end} sees the keys [prefix_start, prefix_end) and [start, t], or with a
// window the last `window` of these, counted along prefix and segment.
//
//            prompt │ chosen │ rejected       Rows are cut at every start and end of a segment or
//            prefix, then
//   prompt     ◣    │        │                every kKeys rows: the key tiles. So a query tile sees
//   a key tile chosen     ■    │   ◣    │                of its prefix whole, and pays for masking
//   on its diagonal only; rejected   ■    │        │   ◣            the blank tiles are on no list.
namespace simper::cpu::attention {

struct KeyTile {
  int64_t begin, end;
  int32_t family;  // which of Work::families
  int32_t slot;    // place among the key tiles of its family
  bool covered;    // inside a segment; else only some prefix names it, and it has no gradient
};

struct QueryTile {
  int64_t begin, end;
  int64_t prefix_first, prefix_last;  // key tiles of the prefix, those outside the window left out
  int64_t own_first, own_last;        // key tiles of the own segment, up to the diagonal
  int64_t start, prefix_end;          // of the segment
  int32_t family;
  int64_t cost;  // visible (query, key) couples

  bool sees_own(int64_t key_tile) const { return own_first <= key_tile && key_tile < own_last; }
  bool sees_prefix(int64_t key_tile) const {
    return prefix_first <= key_tile && key_tile < prefix_last;
  }
};

// Segments tied by prefixes, such as a pair: no row of one family sees a key of another.
struct Family {
  int64_t query_first = 0, query_last = 0;  // its query tiles
  int64_t key_first = 0, key_last = 0;  // its key tiles lie in here, perhaps among those of others
  int64_t key_tiles = 0;
  int64_t cost = 0;
};

struct Work {
  std::vector<KeyTile> keys;       // by row
  std::vector<QueryTile> queries;  // by family, then by row: the order of every sum over queries
  std::vector<Family> families;
  std::vector<uint8_t> covered;  // (T): 1 where a segment covers the row
  std::vector<int32_t> queries_longest_first, families_longest_first, keys_longest_first;
  std::vector<int64_t> key_costs;

  int64_t window = 0;  // keys that a row sees at most; 0 is all

  void build(Tensor segments, int64_t T, int64_t queries_per_tile, int64_t window);

  // What the rows of a query tile see of a key tile, which lies in their own segment or prefix.
  Band band(const QueryTile& queries, const KeyTile& keys, bool own) const;

 private:
  void cut_keys(Tensor segments);
  void join_families(Tensor segments);
  void cut_queries(Tensor segments, int64_t queries_per_tile);
  int64_t visible_couples(const QueryTile& tile, int64_t prefix_start) const;
  int64_t key_tile_from(int64_t row) const;  // the first key tile that begins at `row` or later
  int32_t root_of(int32_t key_tile) const;
  std::vector<int64_t> cuts_;
};

// The lists of the calling thread, rebuilt in memory that is kept from call to call.
const Work& plan_work(Tensor segments, int64_t T, int64_t queries_per_tile, int64_t window);

// Query rows per tile: with the G heads of a group stacked, 192 rows amortise the packing of a key
// tile.
int64_t queries_per_tile(int64_t heads_per_group);

}  // namespace simper::cpu::attention
