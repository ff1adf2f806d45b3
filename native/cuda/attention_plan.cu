// Cuts the segments of a packed batch into tiles (attention_plan.h), and clears the rows that no
// segment covers.
//
//   Block 0 plans, the other blocks clear; a thread per segment counts its tiles, a scan over the
//   block tells it where they go, and each tile counts the tiles that cost more: its place in the
//   list. Cost: S² comparisons for the key tiles (each looks for the prefixes that begin or end
//   inside it), n² for the order of n tiles; about 2 µs of latency and 1 µs per 100 segments on
//   paper. Above kSortLimit tiles the list stays in table order: a batch that long keeps every
//   multiprocessor busy in any order.
#include "cuda/attention_plan.h"

#include <algorithm>

#include "cuda/check.h"
#include "cuda/fault_text.h"

namespace simper::cuda::attention {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kSortLimit = 4096;

struct Planning {
  Plan plan;
  const int32_t* table;  // (S,4), aligned to an element only
  int32_t T;
  IndexCheck check;
  QueryTile* unsorted_queries;
  KeyTile* unsorted_keys;
};

SIMT_DEVICE Segment load_segment(const int32_t* table, int s) {
  const int32_t* row = table + static_cast<int64_t>(s) * 4;
  return {row[0], row[1], row[2], row[3]};
}
SIMT_DEVICE bool is_valid(const Segment& s, int32_t T) {
  return 0 <= s.start && s.start <= s.end && s.end <= T && 0 <= s.prefix_start &&
         s.prefix_start <= s.prefix_end && s.prefix_end <= T;
}

// The sum of `value` over the threads before this one; `total` over all. `sums` has an int per
// warp.
SIMT_DEVICE int sum_before(int value, int* sums, int& total) {
  int sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = simt::shuffle(sum, simt::lane() < step ? 0 : simt::lane() - step);
    if (simt::lane() >= step) sum += other;
  }
  if (simt::lane() == 31) sums[simt::warp()] = sum;
  simt::barrier();
  int before = sum - value;
  total = 0;
  for (int w = 0; w < static_cast<int>(simt::threads() / 32); ++w) {
    if (w < simt::warp()) before += sums[w];
    total += sums[w];
  }
  simt::barrier();  // `sums` may be written again
  return before;
}

// One list: f(segment, place) makes the tiles of a segment from `place` on and returns how many;
// place < 0: it only counts.
template <class F>
SIMT_DEVICE int32_t list_tiles(const Plan& plan, int* sums, F&& f) {
  int listed = 0;
  for (int base = 0; base < plan.segment_count; base += static_cast<int>(simt::threads())) {
    const int s = base + static_cast<int>(simt::thread());
    Segment segment{};
    if (s < plan.segment_count) segment = plan.segments[s];
    const int count = f(segment, -1);
    int total = 0;
    const int place = listed + sum_before(count, sums, total);
    if (count > 0) f(segment, place);
    listed += total;
  }
  return listed;
}

template <class Tile>
SIMT_DEVICE void sort_longest_first(Tile* to, const Tile* from, int32_t count, int32_t* costs) {
  const bool sorts = count <= kSortLimit;
  for (int i = static_cast<int>(simt::thread()); sorts && i < count;
       i += static_cast<int>(simt::threads())) {
    costs[i] = from[i].cost;
  }
  simt::barrier();
  for (int i = static_cast<int>(simt::thread()); i < count;
       i += static_cast<int>(simt::threads())) {
    const Tile tile = from[i];
    int place = sorts ? 0 : i;
    for (int j = 0; sorts && j < count; ++j) {
      place += costs[j] > tile.cost || (costs[j] == tile.cost && j < i);
    }
    to[place] = tile;
  }
  simt::barrier();
}

SIMT_DEVICE int32_t clamp(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}

SIMT_DEVICE int query_tiles_of(const Planning& a, const Segment& s, int place) {
  const int rows = a.plan.query_rows, count = (s.end - s.start + rows - 1) / rows;
  for (int i = 0; place >= 0 && i < count && place + i < a.plan.query_limit; ++i) {
    QueryTile tile{};
    tile.begin = s.start + i * rows;
    tile.end = tile.begin + rows < s.end ? tile.begin + rows : s.end;
    const int32_t first = tile.begin - a.plan.window + 1;  // of its own that the first row sees
    tile.prefix_start = clamp(first + s.shift(), s.prefix_start, s.prefix_end);
    tile.prefix_end = s.prefix_end;
    tile.own_start = clamp(first, s.start, tile.begin);
    tile.shift = s.shift();
    tile.cost = tile.prefix_end - tile.prefix_start + tile.end - tile.own_start;
    a.unsorted_queries[place + i] = tile;
  }
  return count;
}

// The runs of rows of a segment that the same prefixes cover, each cut into tiles.
SIMT_DEVICE int key_tiles_of(const Planning& a, const Segment& own, int place) {
  const int rows = a.plan.key_rows;
  int count = 0;
  for (int32_t begin = own.start; begin < own.end;) {
    KeyTile tile{};
    int32_t end = own.end;
    int32_t visits = 0;
    for (int s = 0; s < a.plan.segment_count; ++s) {
      const Segment other = a.plan.segments[s];
      if (other.prefix_start >= other.prefix_end) continue;
      if (other.prefix_start > begin && other.prefix_start < end) end = other.prefix_start;
      if (other.prefix_end > begin && other.prefix_end < end) end = other.prefix_end;
      if (other.prefix_start <= begin && begin < other.prefix_end && other.start < other.end) {
        if (visits == 0) tile.first_visitor = s;
        tile.last_visitor = s + 1;
        visits += other.end - other.start;
      }
    }
    for (; begin < end; begin += rows, ++count) {
      if (place < 0 || place + count >= a.plan.key_limit) continue;
      tile.begin = begin;
      tile.end = begin + rows < end ? begin + rows : end;
      // Of the rows that have it as prefix, those a window hides it from are counted, too.
      tile.own_end = clamp(tile.end - 1 + a.plan.window, tile.end, own.end);
      tile.cost = visits + tile.own_end - begin;
      a.unsorted_keys[place + count] = tile;
    }
    begin = end;
  }
  return count;
}

SIMT_DEVICE void make_plan(const Planning& a, int* sums, int32_t* costs) {
  const Plan& plan = a.plan;
  for (int s = static_cast<int>(simt::thread()); s < plan.segment_count;
       s += static_cast<int>(simt::threads())) {
    const Segment segment = load_segment(a.table, s);
    const bool valid = is_valid(segment, a.T);
    if (!valid) {
      report(a.check, s, segment.start, segment.end, segment.prefix_start, segment.prefix_end);
    }
    plan.segments[s] = valid ? segment : Segment{};
  }
  // No barrier: a thread lists the query tiles of the segments it has loaded itself. The key tiles,
  // which look at all segments, come after the barriers of that list.
  const int32_t queries = list_tiles(
      plan, sums, [&](const Segment& s, int place) { return query_tiles_of(a, s, place); });
  const int32_t query_count = queries < plan.query_limit ? queries : plan.query_limit;
  int32_t key_count = 0;
  if (plan.key_rows > 0) {
    const int32_t keys = list_tiles(
        plan, sums, [&](const Segment& s, int place) { return key_tiles_of(a, s, place); });
    key_count = keys < plan.key_limit ? keys : plan.key_limit;
  }
  simt::barrier();
  sort_longest_first(plan.queries, a.unsorted_queries, query_count, costs);
  sort_longest_first(plan.keys, a.unsorted_keys, key_count, costs);
  if (simt::thread() == 0) {
    plan.counts[0] = query_count;
    plan.counts[1] = key_count;
  }
}

// A warp per row.
template <class T>
SIMT_DEVICE void clear_row(const Planning& a, int64_t t, Rows<T> values, int64_t columns,
                           Rows<float> numbers, int64_t heads) {
  bool covered = false;
  for (int base = 0; base < a.plan.segment_count && !covered; base += 32) {
    const int s = base + simt::lane();
    bool here = false;
    if (s < a.plan.segment_count) {
      const Segment segment = load_segment(a.table, s);
      here = is_valid(segment, a.T) && segment.start <= t && t < segment.end;
    }
    covered = simt::ballot(here) != 0;
  }
  if (covered) return;
  for (int64_t c = simt::lane(); c < columns; c += 32) values[t][c] = simt::from_float<T>(0.0f);
  for (int64_t h = simt::lane(); h < heads; h += 32) numbers[t][h] = 0.0f;
}

template <class T>
SIMT_KERNEL(kThreads)
plan_kernel(Planning a, Rows<T> values, int64_t columns, Rows<float> numbers, int64_t heads) {
  SIMT_SHARED(memory);
  int* sums = memory.take<int>(kThreads / 32);
  int32_t* costs = memory.take<int32_t>(kSortLimit);
  if (simt::block().x == 0) {
    make_plan(a, sums, costs);
    return;
  }
  const int64_t t = static_cast<int64_t>(simt::block().x - 1) * (kThreads / 32) + simt::warp();
  if (t < a.T) clear_row(a, t, values, columns, numbers, heads);
}

}  // namespace

Plan plan_work(CudaContext& cuda, const char* op, const Tensor& segments, int64_t T, int query_rows,
               int key_rows, int32_t window, const Outputs& outputs) {
  const int64_t S = segments.rows();
  Planning a{};
  Plan& plan = a.plan;
  plan.query_rows = query_rows;
  plan.key_rows = key_rows;
  plan.window = window;
  // A segment begins at most one tile that is not full. Keys are cut at each end of a prefix, too.
  plan.query_limit = static_cast<int32_t>(T / query_rows + S);
  plan.key_limit = key_rows > 0 ? static_cast<int32_t>(T / key_rows + 3 * S) : 0;
  plan.segment_count = static_cast<int32_t>(S);
  plan.segments = cuda.scratch<Segment>(S + 1, kFirstPlanSlot);
  plan.counts = reinterpret_cast<int32_t*>(plan.segments + S);
  plan.queries = cuda.scratch<QueryTile>(2 * plan.query_limit, kFirstPlanSlot + 1);
  plan.keys = cuda.scratch<KeyTile>(2 * plan.key_limit, kFirstPlanSlot + 2);
  a.unsorted_queries = plan.queries + plan.query_limit;
  a.unsorted_keys = plan.keys + plan.key_limit;
  a.table = segments.row<int32_t>(0);
  a.T = static_cast<int32_t>(T);
  a.check = cuda.add_check({op, "segments", 4, 0, T, segment_text});

  const unsigned rows_per_block = kThreads / 32;
  const auto blocks = static_cast<unsigned>(1 + (T + rows_per_block - 1) / rows_per_block);
  const size_t shared = 128 + kSortLimit * sizeof(int32_t);
  with_dtype(outputs.values.dtype, [&]<class E>(E*) {
    simt::launch<plan_kernel<E>>(cuda, simt::Grid{blocks}, kThreads, shared, a,
                                 rows_of<E>(outputs.values), outputs.values.row_size(),
                                 rows_of<float>(outputs.numbers), outputs.numbers.row_size());
  });
  return plan;
}

}  // namespace simper::cuda::attention
