#pragma once
#include <initializer_list>
#include <string>
#include <utility>

#include "core/tensor.h"

namespace simper {

// The dtypes an argument may have; a message says them as "f32", "f32 or bf16" or "bf16 = dtype of x".
struct Kind {
  unsigned mask = 0;            // bit d is set when DType d is allowed
  const char* other = nullptr;  // the argument whose dtype it is, if it is another's

  constexpr Kind(DType dtype, const char* other = nullptr)
      : mask(1u << static_cast<int>(dtype)), other(other) {}
  constexpr Kind(std::initializer_list<DType> dtypes) {
    for (const DType dtype : dtypes) mask |= 1u << static_cast<int>(dtype);
  }
  // The dtype of another argument.
  Kind(const char* other, const Tensor& t) : Kind(t.dtype, other) {}

  bool allows(DType dtype) const { return mask >> static_cast<int>(dtype) & 1u; }
  std::string text() const;
};

// The checks of one op call. Every failure throws ContractError with the op, the argument, what came and
// what was expected: `rmsnorm_forward: rstd has shape (512), expected (1024) = rows of x`.
class Contract {
 public:
  explicit Contract(const char* op) : op_(op) {}

  // dtype, rank, rows that do not overlap; vectors and index tables must be dense.
  void tensor(const char* name, const Tensor& t, const Kind& kind, int32_t rank) const;
  // The same with an exact shape; `why` says where the shape comes from.
  void expect(const char* name, const Tensor& t, const Kind& kind,
              std::initializer_list<int64_t> shape, const char* why) const;
  // A matrix of any shape: {rows, columns}.
  std::pair<int64_t, int64_t> matrix(const char* name, const Tensor& t, const Kind& kind) const;
  // A vector of any length.
  int64_t vector(const char* name, const Tensor& t, const Kind& kind) const;
  // Shape and dtype of another argument.
  void like(const char* name, const Tensor& t, const char* other, const Tensor& model) const;

  void require(bool ok, const std::string& received, const std::string& expected) const {
    if (!ok) fail(received + ", expected " + expected);
  }
  // The two share no byte.
  void apart(const char* name, const Tensor& t, const char* other, const Tensor& u) const;
  // They share no byte, or are one and the same tensor.
  void apart_or_same(const char* name, const Tensor& t, const char* other, const Tensor& u) const;

  [[noreturn]] void fail(const std::string& text) const;

 private:
  void any(const char* name, const Tensor& t, const Kind& kind) const;
  const char* op_;
};

}  // namespace simper
