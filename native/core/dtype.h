#pragma once
#include <bit>
#include <cstdint>

namespace simper {

// f16 exists for loading and saving only: `convert` is the one op that takes it.
enum class DType : int32_t { f32, bf16, f16, i32 };

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::f32 || dtype == DType::i32 ? 4 : 2;
}

constexpr const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"f32", "bf16", "f16", "i32"};
  return kNames[static_cast<int32_t>(dtype)];
}

// The upper half of an f32, rounded to nearest even. A NaN stays a (quiet) NaN.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<uint16_t>(nan ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

}  // namespace simper
