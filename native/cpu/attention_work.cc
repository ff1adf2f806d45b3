#include "cpu/attention_work.h"

#include <algorithm>
#include <numeric>

namespace simper::cpu::attention {
namespace {

struct Segment {
  int64_t start, end, prefix_start, prefix_end;
};

// f(segment) for each one with a row. Without a row a segment reads nothing, whatever its prefix
// says.
template <class F>
void for_segments(Tensor segments, F&& f) {
  for (int64_t s = 0; s < segments.rows(); ++s) {
    const int32_t* row = segments.row<int32_t>(s);
    const Segment segment{row[0], row[1], row[2], std::max(row[2], row[3])};
    if (segment.start < segment.end) f(segment);
  }
}

// Indices by falling cost; equal costs stay in order, so that the list is the same in every run.
template <class CostOf>
void sort_longest_first(std::vector<int32_t>& order, int64_t n, CostOf&& cost_of) {
  order.resize(n);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return cost_of(a) != cost_of(b) ? cost_of(a) > cost_of(b) : a < b;
  });
}

}  // namespace

int64_t queries_per_tile(int64_t heads_per_group) {
  return std::clamp<int64_t>(round_up(192 / heads_per_group, 8), 8, 128);
}

void Work::build(Tensor segments, int64_t T, int64_t queries_per_tile, int64_t window) {
  this->window = window;
  covered.assign(T, 0);
  for_segments(segments, [&](const Segment& s) {
    std::fill(covered.begin() + s.start, covered.begin() + s.end, uint8_t{1});
  });
  cut_keys(segments);
  join_families(segments);
  cut_queries(segments, queries_per_tile);
}

Band Work::band(const QueryTile& queries, const KeyTile& keys, bool own) const {
  // Where the first row stands, in rows of the keys: the segment goes on where its prefix ends.
  const int64_t place = own ? queries.begin : queries.prefix_end + queries.begin - queries.start;
  Band band;
  if (own) band.end = place + 1 - keys.begin;
  if (window > 0) band.first = std::max(-Band::kFar, place - window + 1 - keys.begin);
  return band;
}

int64_t Work::visible_couples(const QueryTile& tile, int64_t prefix_start) const {
  const int64_t n = tile.end - tile.begin;
  const int64_t before = tile.prefix_end - prefix_start + tile.begin - tile.start;
  // Of the first row on, how many see all that is before them.
  const int64_t whole = window > 0 ? std::clamp<int64_t>(window - before, 0, n) : n;
  return whole * before + whole * (whole + 1) / 2 + (n - whole) * window;
}

int64_t Work::key_tile_from(int64_t row) const {
  const auto at = std::lower_bound(keys.begin(), keys.end(), row,
                                   [](const KeyTile& tile, int64_t r) { return tile.begin < r; });
  return at - keys.begin();
}

void Work::cut_keys(Tensor segments) {
  cuts_.clear();
  for_segments(segments, [&](const Segment& s) {
    cuts_.insert(cuts_.end(), {s.start, s.end});
    if (s.prefix_start < s.prefix_end) cuts_.insert(cuts_.end(), {s.prefix_start, s.prefix_end});
  });
  std::sort(cuts_.begin(), cuts_.end());
  cuts_.erase(std::unique(cuts_.begin(), cuts_.end()), cuts_.end());

  keys.clear();
  for (size_t i = 0; i + 1 < cuts_.size(); ++i) {
    bool visible = covered[cuts_[i]];
    if (!visible) {
      for_segments(segments, [&](const Segment& s) {
        visible = visible || (s.prefix_start <= cuts_[i] && cuts_[i] < s.prefix_end);
      });
    }
    if (!visible) continue;  // a gap of the packed batch
    for (int64_t row = cuts_[i]; row < cuts_[i + 1]; row += kKeys) {
      const int32_t index = static_cast<int32_t>(keys.size());
      keys.push_back({row, std::min(row + kKeys, cuts_[i + 1]), index, 0, covered[row] != 0});
    }
  }
}

// Union-find over key tiles: `family` holds the parent, always an earlier tile, until it holds the
// number.
int32_t Work::root_of(int32_t key_tile) const {
  while (keys[key_tile].family != key_tile) key_tile = keys[key_tile].family;
  return key_tile;
}

void Work::join_families(Tensor segments) {
  for_segments(segments, [&](const Segment& s) {
    int32_t root = root_of(static_cast<int32_t>(key_tile_from(s.start)));
    const auto join = [&](int64_t begin, int64_t end) {
      for (int64_t i = key_tile_from(begin); i < key_tile_from(end); ++i) {
        const int32_t other = root_of(static_cast<int32_t>(i));
        keys[std::max(root, other)].family = std::min(root, other);
        root = std::min(root, other);
      }
    };
    join(s.start, s.end);
    join(s.prefix_start, s.prefix_end);
  });
  families.clear();
  for (size_t i = 0; i < keys.size(); ++i) {
    KeyTile& tile = keys[i];
    const int32_t parent = tile.family;  // earlier tiles hold their numbers already
    if (parent == static_cast<int32_t>(i)) {
      tile.family = static_cast<int32_t>(families.size());
      families.push_back({.key_first = static_cast<int64_t>(i)});
    } else {
      tile.family = keys[parent].family;
    }
    Family& family = families[tile.family];
    tile.slot = static_cast<int32_t>(family.key_tiles++);
    family.key_last = i + 1;
  }
}

void Work::cut_queries(Tensor segments, int64_t queries_per_tile) {
  queries.clear();
  key_costs.assign(keys.size(), 0);
  for_segments(segments, [&](const Segment& s) {
    for (int64_t row = s.start; row < s.end; row += queries_per_tile) {
      QueryTile tile{};
      tile.begin = row;
      tile.end = std::min(row + queries_per_tile, s.end);
      tile.prefix_first = key_tile_from(s.prefix_start);
      tile.prefix_last = std::max(tile.prefix_first, key_tile_from(s.prefix_end));
      tile.own_first = key_tile_from(s.start);
      tile.own_last = key_tile_from(tile.end);
      tile.start = s.start;
      tile.prefix_end = s.prefix_end;
      tile.family = keys[tile.own_first].family;
      if (window > 0) {  // tiles that end before the first key of the first row: no row sees them
        const auto skip_hidden = [&](int64_t& first, int64_t last, bool own) {
          while (first < last &&
                 keys[first].end - keys[first].begin <= band(tile, keys[first], own).first)
            ++first;
        };
        skip_hidden(tile.prefix_first, tile.prefix_last, false);
        skip_hidden(tile.own_first, tile.own_last, true);
      }
      const int64_t n = tile.end - tile.begin;
      tile.cost = visible_couples(tile, s.prefix_start);
      queries.push_back(tile);
      for (int64_t k = tile.prefix_first; k < tile.prefix_last; ++k) key_costs[k] += n;
      for (int64_t k = tile.own_first; k < tile.own_last; ++k) key_costs[k] += n;
    }
  });
  std::sort(queries.begin(), queries.end(), [](const QueryTile& a, const QueryTile& b) {
    return a.family != b.family ? a.family < b.family : a.begin < b.begin;
  });
  for (size_t i = 0; i < queries.size(); ++i) {
    Family& family = families[queries[i].family];
    if (family.query_last == 0) family.query_first = i;
    family.query_last = i + 1;
    family.cost += queries[i].cost;
  }
  sort_longest_first(queries_longest_first, queries.size(),
                     [&](int32_t i) { return queries[i].cost; });
  sort_longest_first(families_longest_first, families.size(),
                     [&](int32_t i) { return families[i].cost; });
  sort_longest_first(keys_longest_first, keys.size(), [&](int32_t i) { return key_costs[i]; });
}

const Work& plan_work(Tensor segments, int64_t T, int64_t queries_per_tile, int64_t window) {
  thread_local Work work;
  work.build(segments, T, queries_per_tile, window);
  return work;
}

}  // namespace simper::cpu::attention
