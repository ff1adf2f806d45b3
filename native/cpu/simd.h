#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "core/dtype.h"

// Sixteen floats at a time with the compiler's vector types: one AVX-512 register, two AVX2 ones,
// four NEON.
namespace simper::cpu {

constexpr int64_t kLanes = 16;
typedef float Vec __attribute__((vector_size(64)));
typedef uint32_t VecU32 __attribute__((vector_size(64)));
typedef int32_t VecI32 __attribute__((vector_size(64)));
typedef uint16_t VecU16 __attribute__((vector_size(32)));

inline Vec splat(float value) {
  return value - Vec{};
}

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const bf16* p) {
  VecU16 half;
  std::memcpy(&half, p, sizeof half);
#ifdef __AVX512F__  // one instruction that the compiler does not find
  const auto wide = _mm512_maskz_cvtepu16_epi32(0xffff, std::bit_cast<__m256i>(half));
  return std::bit_cast<Vec>(std::bit_cast<VecU32>(wide) << 16);
#else
  return std::bit_cast<Vec>(__builtin_convertvector(half, VecU32) << 16);
#endif
}

inline void store(float* p, Vec v) {
  std::memcpy(p, &v, sizeof v);
}
inline void store(bf16* p, Vec v) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
  // The same rounding in one instruction, except that it takes subnormals for zeros.
  constexpr int kSubnormal = 0x20;
  if (_mm512_fpclass_ps_mask(std::bit_cast<__m512>(v), kSubnormal) == 0) [[likely]] {
    const auto half = _mm512_cvtneps_pbh(std::bit_cast<__m512>(v));
    std::memcpy(p, &half, sizeof half);
    return;
  }
#endif
  const VecU32 u = std::bit_cast<VecU32>(v);
  const VecU32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const VecU32 quiet = (u >> 16) | 0x40u;
  const VecU32 bits = (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  const VecU16 half = __builtin_convertvector(bits, VecU16);
  std::memcpy(p, &half, sizeof half);
}

// The first n <= kLanes elements; missing lanes are `rest`. Through the same full-width load and
// store, so that an element's bits do not depend on where a range ends, and by memcpy, so that a
// bf16 output may lie over its f32 input.
template <class T>
inline Vec load(const T* p, int64_t n, float rest = 0.0f) {
  if (n >= kLanes) return load(p);
  T part[kLanes] = {};
  std::memcpy(part, p, static_cast<std::size_t>(n) * sizeof(T));
  constexpr VecI32 kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return kLane < static_cast<int32_t>(n) ? load(part) : splat(rest);
}
template <class T>
inline void store(T* p, Vec v, int64_t n) {
  if (n >= kLanes) return store(p, v);
  T part[kLanes];
  store(part, v);
  std::memcpy(p, part, static_cast<std::size_t>(n) * sizeof(T));
}

// f(i, k) on [0, n) by groups of k = kLanes elements; the last group may be shorter.
template <class F>
inline void for_lanes(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, n - i);
}

inline Vec max(Vec a, Vec b) {
  return a > b ? a : b;
}

// Combines all lanes by halves (8 apart, then 4, 2, 1), so that the order of a sum does not depend
// on the vector width of the machine.
template <class Combine>
inline float reduce(Vec v, Combine&& combine) {
  v = combine(v,
              __builtin_shuffle(v, VecI32{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
  v = combine(v,
              __builtin_shuffle(v, VecI32{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));
  v = combine(v,
              __builtin_shuffle(v, VecI32{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13}));
  v = combine(v,
              __builtin_shuffle(v, VecI32{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14}));
  return v[0];
}
inline float sum(Vec v) {
  return reduce(v, [](Vec a, Vec b) { return a + b; });
}
inline float max(Vec v) {
  return reduce(v, [](Vec a, Vec b) { return max(a, b); });
}

inline Vec sqrt(Vec v) {
#ifdef __AVX512F__  // the compiler would take two halves through memory
  return std::bit_cast<Vec>(_mm512_maskz_sqrt_ps(0xffff, std::bit_cast<__m512>(v)));
#else
  float lanes[kLanes];
  store(lanes, v);
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = std::sqrt(lanes[i]);
  return load(lanes);
#endif
}

// e^x: x = n·ln2 + r, |r| <= ln2/2, a degree-6 polynomial for e^r and n added to the exponent.
// Relative error below 2e-7; exactly 0 below -87.3 (also for -inf), clamped above 88.3 (+inf is not
// produced); NaN stays NaN.
inline Vec exp(Vec x) {
  const Vec clamped = x < -87.336f ? splat(-87.336f) : (x > 88.37f ? splat(88.37f) : x);
  const Vec shifter = splat(12582912.0f);  // 1.5·2^23: adding it rounds to the nearest integer
  const Vec rounded = clamped * 1.44269504089f + shifter;
  const Vec n = rounded - shifter;
  const Vec r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const VecU32 exponent = (std::bit_cast<VecU32>(rounded) - std::bit_cast<VecU32>(shifter)) << 23;
  const Vec y = std::bit_cast<Vec>(std::bit_cast<VecU32>(p) + exponent);
  // A NaN's low bits would end up in the exponent and could make a number of it.
  return x < -87.336f ? splat(0.0f) : (x != x ? x : y);
}

}  // namespace simper::cpu
