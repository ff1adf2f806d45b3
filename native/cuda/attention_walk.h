#pragma once
// The ways through the tiles of a plan, in the order of every sum: the keys that a query tile sees,
// and the queries that see a key tile.
#include "cuda/attention.h"

namespace simper::cuda::attention {

// The keys that a query tile sees: tiles of the prefix, then of its own segment.
struct Keys {
  int prefix_start, prefix_end, own_start, own_end;
  int prefix_tiles, tiles;

  SIMT_DEVICE Keys(const QueryTile& q, int keys_per_tile)
      : prefix_start(q.prefix_start),
        prefix_end(q.prefix_end),
        own_start(q.own_start),
        own_end(q.end),
        prefix_tiles((q.prefix_end - q.prefix_start + keys_per_tile - 1) / keys_per_tile),
        tiles(prefix_tiles + (q.end - q.own_start + keys_per_tile - 1) / keys_per_tile),
        keys_per_tile(keys_per_tile) {}

  SIMT_DEVICE bool is_own(int tile) const { return tile >= prefix_tiles; }
  SIMT_DEVICE int begin(int tile) const {
    return is_own(tile) ? own_start + (tile - prefix_tiles) * keys_per_tile
                        : prefix_start + tile * keys_per_tile;
  }
  SIMT_DEVICE int end(int tile) const { return is_own(tile) ? own_end : prefix_end; }
  // Whether some row from `row` on does not see some key of the tile.
  SIMT_DEVICE bool is_masked(int tile, int row) const {
    const int last = begin(tile) + keys_per_tile - 1;
    return last >= end(tile) || (is_own(tile) && last > row);
  }
  // How many keys from the tile's first on does the row see? May be less than 0 or more than all.
  SIMT_DEVICE int visible(int tile, int row) const {
    const int last = is_own(tile) && row < own_end ? row + 1 : end(tile);
    return last - begin(tile);
  }

 private:
  int keys_per_tile;
};

// The query tiles that see a key tile, one after another.
class Visits {
 public:
  SIMT_DEVICE Visits(const Plan& plan, const KeyTile& keys, int rows_per_tile, int heads)
      : segments_(plan.segments),
        keys_(keys),
        rows_(rows_per_tile),
        heads_(heads),
        segment_(keys.first_visitor - 1),
        begin_(keys.begin),
        end_(keys.own_end),
        row_(keys.begin) {}

  SIMT_DEVICE int begin() const { return row_; }
  SIMT_DEVICE int end() const { return end_; }
  SIMT_DEVICE int head() const { return head_; }  // of the group
  // Row t of a segment that has the tile as prefix stands at row t + shift() of the tile's own
  // rows.
  SIMT_DEVICE int shift() const { return own_ ? 0 : segments_[segment_].shift(); }
  // Whether a key comes after row begin() of the own segment.
  SIMT_DEVICE bool is_diagonal(int key) const { return own_ && row_ < key; }

  SIMT_DEVICE bool next() {
    row_ += rows_;
    if (row_ < end_) return true;
    row_ = begin_;
    if (++head_ < heads_) return true;
    head_ = 0;
    own_ = false;
    while (++segment_ < keys_.last_visitor) {
      const Segment s = segments_[segment_];
      if (!keys_.is_prefix_of(s)) continue;
      begin_ = row_ = s.start;
      end_ = s.end;
      return true;
    }
    return false;
  }

 private:
  const Segment* segments_;
  const KeyTile& keys_;
  int rows_, heads_;
  int segment_, begin_, end_, row_, head_ = 0;
  bool own_ = true;
};

}  // namespace simper::cuda::attention
