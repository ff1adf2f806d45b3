// Whether the wrappers of simt.h do on a GPU what the emulator says they do. This file is compiled
// twice, by nvcc and by g++ (emulator/conformance.cc); each program runs every wrapper on the same
// random data and writes what came out, and either compares two such files:
//
//   simper_conformance run <file> <seed>         simper_conformance compare <file> <file>
//
// Moves of data, conversions and sums in a fixed order have to agree in every bit. Two wrappers
// round in ways that hardware does not promise: exp2_fast (2 ulp, small results flushed to zero)
// and the sums inside mma_16x8x16 (which are also checked on whole numbers, where they are exact).
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/simt/simt.h"

namespace simper::conformance {
namespace {

using namespace simt;
using Words = std::vector<uint32_t>;

// ---- kernels: each thread writes what a wrapper gave it -----------------------------------------

SIMT_KERNEL(96) places(uint32_t* out) {
  const Grid at = block(), of = blocks();
  const unsigned index = (at.z * of.y + at.y) * of.x + at.x;
  uint32_t* mine = out + 8 * (index * threads() + thread());
  mine[0] = thread();
  mine[1] = threads();
  mine[2] = at.x | at.y << 8 | at.z << 16;
  mine[3] = of.x | of.y << 8 | of.z << 16;
  mine[4] = static_cast<uint32_t>(lane());
  mine[5] = static_cast<uint32_t>(warp());
  mine[6] = index;
  mine[7] = 0;
}

// Through shared memory, whose arrays start at multiples of 128 bytes.
SIMT_KERNEL(128) exchanges(uint32_t* out, const uint32_t* in) {
  SIMT_SHARED(memory);
  auto* bytes = memory.take<unsigned char>(5);
  auto* words = memory.take<uint32_t>(128);
  auto* partials = memory.take<float>(4);
  const unsigned t = thread();
  if (t < 5) bytes[t] = static_cast<unsigned char>(in[t]);
  words[t] = in[t];
  barrier();
  out[t] = words[127 - t] ^ bytes[t % 5];
  barrier();
  // Each half of the block on its own: a named barrier of 64 threads.
  const unsigned half = t / 64;
  words[t] = in[t] + 1;
  barrier(static_cast<int>(1 + half), 64);
  out[128 + t] = words[64 * half + (t + 7) % 64];
  barrier();
  // Among the lanes of a warp alone.
  words[t] = in[t] + 2;
  sync_warp();
  out[256 + t] = words[t ^ 13];
  out[384 + t] = as_bits(block_sum(as_float(in[128 + t]), partials));
  out[512 + t] = static_cast<uint32_t>(
      (reinterpret_cast<uint64_t>(words) | reinterpret_cast<uint64_t>(partials)) % 128);
}

SIMT_KERNEL(64) lanes(uint32_t* out, const uint32_t* in) {
  const unsigned t = thread();
  const uint32_t value = in[t];
  const int source = static_cast<int>(in[64 + t] % 32);
  uint32_t* mine = out + 16 * t;
  mine[0] = shuffle(value, source);
  for (int i = 0; i < 5; ++i) mine[1 + i] = shuffle_xor(value, 1 << i);
  const uint64_t wide = static_cast<uint64_t>(in[128 + t]) << 32 | value;
  const uint64_t moved = shuffle(wide, source);
  mine[6] = static_cast<uint32_t>(moved);
  mine[7] = static_cast<uint32_t>(moved >> 32);
  mine[8] = as_bits(shuffle_xor(as_float(value), 31));
  mine[9] = ballot((value & 1) != 0);
  mine[10] = ballot((value >> 7) % 3 == 0);
  const float number = as_float(in[192 + t]);
  mine[11] = as_bits(warp_sum(number));
  mine[12] = as_bits(warp_max(number));
  for (int i = 13; i < 16; ++i) mine[i] = 0;
}

SIMT_KERNEL(256) conversions(uint32_t* out, const uint32_t* in, int count) {
  const int i = static_cast<int>(block().x * threads() + thread());
  if (i >= count) return;
  const uint32_t low = in[2 * i], high = in[2 * i + 1];
  uint32_t* mine = out + 4 * i;
  mine[0] = pack_bf16(as_float(low), as_float(high));
  mine[1] = as_bits(low_half(low));
  mine[2] = as_bits(high_half(low));
  bf16 half;
  half.bits = static_cast<uint16_t>(high);
  mine[3] = as_bits(to_float(half)) | from_float<bf16>(as_float(low)).bits;
}

SIMT_KERNEL(256) exponentials(uint32_t* out, const uint32_t* in, int count) {
  const int i = static_cast<int>(block().x * threads() + thread());
  if (i < count) out[i] = as_bits(exp2_fast(as_float(in[i])));
}

// 16-byte, 8-byte, 4-byte and 2-byte accesses.
SIMT_KERNEL(64) packs(uint16_t* out, const uint16_t* in) {
  const int t = static_cast<int>(thread());
  store_pack(out + 8 * t, load_pack<8>(in + 8 * (63 - t)));
  store_pack(out + 512 + 4 * t, load_pack<4>(in + 512 + 4 * (63 - t)));
  store_pack(out + 768 + 2 * t, load_pack<2>(in + 768 + 2 * (63 - t)));
  store_pack(out + 896 + t, load_pack<1>(in + 896 + (63 - t)));
}

// ldmatrix of rows in any order, plain and transposed. Every warp reads rows of its own.
SIMT_KERNEL(64) matrices(uint32_t* out, const uint32_t* in) {
  SIMT_SHARED(memory);
  constexpr int kRow = 8 + 8;  // elements: rows lie apart
  auto* rows = memory.take<bf16>(64 * kRow);
  auto* words = reinterpret_cast<uint32_t*>(rows);
  for (unsigned i = thread(); i < 64 * kRow / 2; i += threads()) words[i] = in[i];
  barrier();
  const uint32_t row = in[512 + thread()] % 64;
  uint32_t plain[4], transposed[4];
  load_matrix_4(plain, rows + row * kRow);
  load_matrix_4_transposed(transposed, rows + row * kRow + (row % 2) * 8);
  for (int i = 0; i < 4; ++i) {
    out[8 * thread() + static_cast<unsigned>(i)] = plain[i];
    out[8 * thread() + 4 + static_cast<unsigned>(i)] = transposed[i];
  }
}

SIMT_KERNEL(64) products(uint32_t* out, const uint32_t* in) {
  const uint32_t* mine = in + 10 * thread();
  const uint32_t a[4] = {mine[0], mine[1], mine[2], mine[3]};
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = as_float(mine[6 + i]);
  mma_16x8x16(c, a, mine[4], mine[5]);
  for (int i = 0; i < 4; ++i) out[4 * thread() + static_cast<unsigned>(i)] = as_bits(c[i]);
}

// Three groups of asynchronous copies, some of them not valid; what has landed after each wait.
SIMT_KERNEL(64) copies(uint32_t* out, const uint32_t* in) {
  SIMT_SHARED(memory);
  auto* stages = memory.take<uint32_t>(3 * 64 * 4);
  const unsigned t = thread();
  const uint32_t which = in[3 * 64 * 4 + t];
  for (unsigned stage = 0; stage < 3; ++stage) {
    const unsigned from = stage * 64 + (t * 5 + stage) % 64;
    copy_async_16(stages + 4 * (stage * 64 + t), in + 4 * from, (which >> stage & 1) != 0);
    copy_async_commit();
  }
  copy_async_wait<2>();
  barrier();
  for (unsigned i = 0; i < 4; ++i) out[4 * t + i] = stages[4 * (63 - t) + i];
  copy_async_wait<1>();
  barrier();
  for (unsigned i = 0; i < 4; ++i) out[256 + 4 * t + i] = stages[256 + 4 * (63 - t) + i];
  copy_async_wait<0>();
  barrier();
  for (unsigned i = 0; i < 4; ++i) out[512 + 4 * t + i] = stages[512 + 4 * (63 - t) + i];
}

// Who comes first is open; that exactly one wins each slot, and is named there, is not.
SIMT_KERNEL(128) winners(uint32_t* out, int32_t* slots, const uint32_t* in) {
  const auto me = static_cast<int32_t>(block().x * threads() + thread());
  const uint32_t slot = in[me] % 8;
  const int32_t before = atomic_compare_exchange(slots + slot, -1, me);
  out[me] = before == -1;
}
SIMT_KERNEL(32) judge(uint32_t* out, const uint32_t* won, const int32_t* slots, int count) {
  if (thread() >= 8) return;
  const int32_t winner = slots[thread()];
  uint32_t wins = 0;
  for (int i = 0; i < count; ++i) wins += won[i];
  out[2 * thread()] = winner >= 0 && winner < count && won[winner] == 1;
  out[2 * thread() + 1] = wins;
}

// ---- memory of the device, which is the host's in the emulator ----------------------------------

#ifdef __CUDACC__
void expect(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "conformance: %s\n", cudaGetErrorString(status));
  std::exit(1);
}
uint32_t* to_device(const Words& words) {
  void* memory = nullptr;
  expect(cudaMalloc(&memory, 4 * words.size()));
  expect(cudaMemcpy(memory, words.data(), 4 * words.size(), cudaMemcpyHostToDevice));
  return static_cast<uint32_t*>(memory);
}
Words to_host(const uint32_t* memory, size_t count) {
  Words words(count);
  expect(cudaDeviceSynchronize());
  expect(cudaMemcpy(words.data(), memory, 4 * count, cudaMemcpyDeviceToHost));
  return words;
}
#else
uint32_t* to_device(const Words& words) {
  auto* memory =
      static_cast<uint32_t*>(std::aligned_alloc(256, (4 * words.size() + 255) / 256 * 256));
  if (!memory) std::exit(1);
  std::memcpy(memory, words.data(), 4 * words.size());
  return memory;
}
Words to_host(const uint32_t* memory, size_t count) {
  return Words(memory, memory + count);
}
#endif

// ---- random data --------------------------------------------------------------------------------

// SplitMix64 [Steele, Lea & Flood 2014].
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
  }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(bits() >> 8) * 0x1p-24f;
  }
  Words words(size_t count) {
    Words result(count);
    for (uint32_t& word : result) word = bits();
    return result;
  }

 private:
  uint64_t state_;
};

uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
uint32_t half_bits(float value) {
  return bf16(value).bits;
}

// ---- records ------------------------------------------------------------------------------------

// How the words of two records are compared.
enum class Rule : uint32_t {
  bits,         // equal
  half_pairs,   // two bf16 per word, equal, but any NaN is like any other
  exponential,  // f32: 2 ulp, and what is below the smallest normal number is zero
  sum,          // f32: up to 2⁻¹⁶: a product's sums, whatever their order
};

struct Record {
  std::string name;
  Rule rule;
  Words words;
};

// Runs a kernel on `in`, with `count` words of output that start as NaN.
template <auto kernel, class... More>
Words run(cuda::CudaContext& context, Grid grid, unsigned threads, size_t shared, size_t count,
          const Words& in, More... more) {
  uint32_t* from = to_device(in);
  uint32_t* to = to_device(Words(count, ~0u));
  simt::launch<kernel>(context, grid, threads, shared, to, static_cast<const uint32_t*>(from),
                       more...);
  return to_host(to, count);
}

std::vector<Record> run_all(uint64_t seed) {
  cuda::CudaContext context;
  Random random(seed);
  std::vector<Record> records;
  const auto add = [&](const char* name, Rule rule, Words words) {
    records.push_back({name, rule, std::move(words)});
  };

  const Grid grid{3, 2, 2};
  uint32_t* place = to_device(Words(12 * 96 * 8, ~0u));
  simt::launch<places>(context, grid, 96, 0, place);
  add("thread, threads, block, blocks, lane, warp", Rule::bits, to_host(place, 12 * 96 * 8));

  Words in = random.words(128);
  for (int i = 0; i < 128; ++i) in.push_back(float_bits(random.uniform(-1, 1)));
  add("barrier, named barrier, sync_warp, block_sum, SharedMemory", Rule::bits,
      run<exchanges>(context, {1}, 128, 128 + 512 + 128, 640, in));

  in = random.words(192);
  for (int i = 0; i < 64; ++i) in.push_back(float_bits(random.uniform(-100, 100)));
  add("shuffle, shuffle_xor, ballot, warp_sum, warp_max", Rule::bits,
      run<lanes>(context, {1}, 64, 0, 16 * 64, in));

  // All patterns of bits, and those where rounding to bf16 is decided: ties and their neighbours.
  constexpr int kConversions = 1 << 16;
  in = random.words(2 * kConversions);
  for (size_t i = 0; i < in.size(); i += 2)
    in[i] = (in[i] & 0xffff0000u) | (0x7fffu + in[i + 1] % 3);
  add("pack_bf16, low_half, high_half, to_float, from_float", Rule::half_pairs,
      run<conversions>(context, {kConversions / 256}, 256, 0, 4 * kConversions, in, kConversions));

  constexpr int kExponentials = 1 << 16;
  in.clear();
  for (int i = 0; i < kExponentials; ++i) in.push_back(float_bits(random.uniform(-150, 130)));
  for (float value :
       {0.0f, -0.0f, 1.0f, -1.0f, -INFINITY, INFINITY, NAN, -127.0f, -126.0f, 1e-30f}) {
    in[static_cast<size_t>(random.bits() % kExponentials)] = float_bits(value);
  }
  add("exp2_fast", Rule::exponential,
      run<exponentials>(context, {kExponentials / 256}, 256, 0, kExponentials, in, kExponentials));

  in = random.words(480);
  const Words packed = [&] {
    uint32_t* from = to_device(in);
    uint32_t* to = to_device(Words(480, ~0u));
    simt::launch<packs>(context, {1}, 64, 0, reinterpret_cast<uint16_t*>(to),
                        reinterpret_cast<const uint16_t*>(from));
    return to_host(to, 480);
  }();
  add("load_pack, store_pack", Rule::bits, packed);

  add("load_matrix_4, load_matrix_4_transposed", Rule::bits,
      run<matrices>(context, {1}, 64, 64 * 16 * 2, 8 * 64, random.words(512 + 64)));

  // Whole numbers up to 16: products and sums are exact whatever their order.
  const auto pair_of = [](float low, float high) { return half_bits(low) | half_bits(high) << 16; };
  const auto whole = [&] { return static_cast<float>(static_cast<int>(random.bits() % 33) - 16); };
  in.clear();
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 6; ++j) in.push_back(pair_of(whole(), whole()));
    for (int j = 0; j < 4; ++j) in.push_back(float_bits(whole()));
  }
  add("mma_16x8x16, whole numbers", Rule::bits, run<products>(context, {1}, 64, 0, 4 * 64, in));
  in.clear();
  for (int i = 0; i < 64; ++i) {
    for (int j = 0; j < 6; ++j) in.push_back(pair_of(random.uniform(-1, 1), random.uniform(-1, 1)));
    for (int j = 0; j < 4; ++j) in.push_back(float_bits(random.uniform(-1, 1)));
  }
  add("mma_16x8x16, any numbers", Rule::sum, run<products>(context, {1}, 64, 0, 4 * 64, in));

  add("copy_async_16, copy_async_commit, copy_async_wait", Rule::bits,
      run<copies>(context, {1}, 64, 3 * 64 * 16, 768, random.words(3 * 64 * 4 + 64)));

  constexpr int kThreads = 4 * 128;
  uint32_t* in_device = to_device(random.words(kThreads));
  uint32_t* won = to_device(Words(kThreads, ~0u));
  auto* slots = reinterpret_cast<int32_t*>(to_device(Words(8, ~0u)));
  uint32_t* verdict = to_device(Words(16, ~0u));
  simt::launch<winners>(context, {4}, 128, 0, won, slots, static_cast<const uint32_t*>(in_device));
  simt::launch<judge>(context, {1}, 32, 0, verdict, static_cast<const uint32_t*>(won),
                      static_cast<const int32_t*>(slots), kThreads);
  add("atomic_compare_exchange", Rule::bits, to_host(verdict, 16));
  return records;
}

// ---- files --------------------------------------------------------------------------------------

[[noreturn]] void stop_with(const std::string& what) {
  std::fprintf(stderr, "conformance: %s\n", what.c_str());
  std::exit(1);
}

void write_file(const char* path, const std::vector<Record>& records) {
  std::FILE* file = std::fopen(path, "wb");
  if (!file) stop_with(std::string("cannot write ") + path);
  for (const Record& record : records) {
    const uint32_t head[] = {static_cast<uint32_t>(record.name.size()),
                             static_cast<uint32_t>(record.rule),
                             static_cast<uint32_t>(record.words.size())};
    bool written = std::fwrite(head, sizeof head, 1, file) == 1;
    written &= std::fwrite(record.name.data(), record.name.size(), 1, file) == 1;
    written &=
        std::fwrite(record.words.data(), 4, record.words.size(), file) == record.words.size();
    if (!written) stop_with(std::string("cannot write ") + path);
  }
  if (std::fclose(file) != 0) stop_with(std::string("cannot write ") + path);
}

std::vector<Record> read_file(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (!file) stop_with(std::string("cannot read ") + path);
  std::vector<Record> records;
  uint32_t head[3];
  while (std::fread(head, sizeof head, 1, file) == 1) {
    Record record{std::string(head[0], ' '), static_cast<Rule>(head[1]), Words(head[2])};
    if (std::fread(record.name.data(), 1, head[0], file) != head[0] ||
        std::fread(record.words.data(), 4, head[2], file) != head[2]) {
      stop_with(std::string(path) + " ends in the middle of a record");
    }
    records.push_back(std::move(record));
  }
  std::fclose(file);
  return records;
}

bool is_nan_half(uint32_t half) {
  return (half & 0x7fffu) > 0x7f80u;
}

bool agree(Rule rule, uint32_t a, uint32_t b) {
  if (a == b) return true;
  const float x = bits_float(a), y = bits_float(b);
  switch (rule) {
    case Rule::bits:
      return false;
    case Rule::half_pairs:
      for (int shift : {0, 16}) {
        const uint32_t p = a >> shift & 0xffffu, q = b >> shift & 0xffffu;
        if (p != q && !(is_nan_half(p) && is_nan_half(q))) return false;
      }
      return true;
    case Rule::exponential: {
      if (std::isnan(x) || std::isnan(y)) return std::isnan(x) && std::isnan(y);
      if (std::isinf(x) || std::isinf(y)) return false;
      const float difference = std::fabs(x - y);
      return difference <= 0x1p-126f || difference <= 2 * 0x1p-23f * std::fmax(x, y);
    }
    case Rule::sum:
      return std::fabs(x - y) <= 0x1p-16f;  // 17 terms of at most 1
  }
  return false;
}

int compare(const char* left, const char* right) {
  const std::vector<Record> a = read_file(left), b = read_file(right);
  if (a.empty() || a.size() != b.size()) stop_with("the files hold different tests");
  int wrong = 0;
  for (size_t r = 0; r < a.size(); ++r) {
    if (a[r].name != b[r].name || a[r].words.size() != b[r].words.size()) {
      stop_with("the files hold different tests");
    }
    size_t differ = 0, first = 0;
    for (size_t i = 0; i < a[r].words.size(); ++i) {
      if (agree(a[r].rule, a[r].words[i], b[r].words[i])) continue;
      if (differ++ == 0) first = i;
    }
    std::printf("%-4s %s: %zu words", differ ? "FAIL" : "ok", a[r].name.c_str(), a[r].words.size());
    if (differ) {
      std::printf(", %zu differ, first [%zu]: %08x and %08x", differ, first, a[r].words[first],
                  b[r].words[first]);
    }
    std::printf("\n");
    wrong += differ > 0;
  }
  return wrong > 0;
}

}  // namespace
}  // namespace simper::conformance

int main(int argc, char** argv) {
  using namespace simper::conformance;
  const std::string command = argc == 4 ? argv[1] : "";
  try {
    if (command == "compare") return compare(argv[2], argv[3]);
    if (command == "run") {
      write_file(argv[2], run_all(std::strtoull(argv[3], nullptr, 10)));
      return 0;
    }
  } catch (const std::exception& error) {
    stop_with(error.what());
  }
  stop_with("expected: run <file> <seed>, or compare <file> <file>");
}
