#pragma once
#include <algorithm>
#include <initializer_list>
#include <sstream>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/tensor.h"

namespace simper {

// The dtypes an argument may have; a message says them as "f32", "f32 or bf16" or "bf16 = dtype of
// x".
struct Kind {
  unsigned mask = 0;            // bit d is set when DType d is allowed
  const char* other = nullptr;  // the argument whose dtype it is, if it is another's

  constexpr Kind(DType dtype, const char* other = nullptr)
      : mask(1u << static_cast<int>(dtype)), other(other) {}
  constexpr Kind(std::initializer_list<DType> dtypes) {
    for (const DType dtype : dtypes) mask |= 1u << static_cast<int>(dtype);
  }
  Kind(const char* other, const Tensor& t) : Kind(t.dtype, other) {}

  bool allows(DType dtype) const { return mask >> static_cast<int>(dtype) & 1u; }
  std::string text() const {
    std::string text;
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i32}) {
      if (allows(dtype)) text += (text.empty() ? "" : " or ") + std::string(name_of(dtype));
    }
    return other ? text + " = dtype of " + other : text;
  }
};

// The checks of one op call. Every failure throws ContractError with the op, the argument, what
// came and what was expected: `rmsnorm_forward: rstd has shape (512), expected (1024) = rows of x`.
class Contract {
 public:
  explicit Contract(const char* op) : op_(op) {}

  // dtype, sizes, and rows that do not overlap; vectors and index tables must be dense.
  void tensor(const char* name, const Tensor& t, const Kind& kind) const {
    const auto reject = [&](const std::string& received, const std::string& expected) {
      fail(std::string(name) + " has " + received + ", expected " + expected);
    };
    if (!kind.allows(t.dtype)) reject(std::string("dtype ") + name_of(t.dtype), kind.text());
    if (t.rank < 1 || t.rank > kMaxRank) {
      reject("rank " + std::to_string(t.rank), "1 to " + std::to_string(kMaxRank));
    }
    if (std::any_of(t.shape, t.shape + t.rank, [](int64_t n) { return n < 0; })) {
      reject("shape " + shape_text(t), "no negative sizes");
    }
    const int64_t row = t.row_size();
    if (t.rows() <= 1) return;
    if (t.row_stride < row) {
      reject("row stride " + std::to_string(t.row_stride),
             "at least " + std::to_string(row) + " so that rows do not overlap");
    }
    if ((t.rank == 1 || t.dtype == DType::i32) && t.row_stride != row) {
      reject("row stride " + std::to_string(t.row_stride), std::to_string(row) + " = dense");
    }
  }

  // A matrix of any shape: {rows, columns}.
  std::pair<int64_t, int64_t> matrix(const char* name, const Tensor& t, const Kind& kind) const {
    tensor(name, t, kind);
    if (t.rank != 2)
      fail(std::string(name) + " has shape " + shape_text(t) + ", expected a matrix");
    return {t.shape[0], t.shape[1]};
  }

  // A vector of any length.
  int64_t vector(const char* name, const Tensor& t, const Kind& kind) const {
    tensor(name, t, kind);
    if (t.rank != 1)
      fail(std::string(name) + " has shape " + shape_text(t) + ", expected a vector");
    return t.shape[0];
  }

  // An exact shape; `why` says where it comes from.
  void expect(const char* name, const Tensor& t, const Kind& kind,
              std::initializer_list<int64_t> shape, const char* why) const {
    tensor(name, t, kind);
    const auto rank = static_cast<int32_t>(shape.size());
    if (t.rank == rank && std::equal(shape.begin(), shape.end(), t.shape)) return;
    fail(std::string(name) + " has shape " + shape_text(t) + ", expected " +
         shape_text(shape.begin(), rank) + " = " + why);
  }

  // Shape and dtype of another argument.
  void like(const char* name, const Tensor& t, const char* other, const Tensor& model) const {
    tensor(name, t, Kind(other, model));
    if (t.rank == model.rank && std::equal(t.shape, t.shape + t.rank, model.shape)) return;
    fail(std::string(name) + " has shape " + shape_text(t) + ", expected " + shape_text(model) +
         " = shape of " + other);
  }

  // The two share no byte.
  void apart(const char* name, const Tensor& t, const char* other, const Tensor& u) const {
    if (!overlap(t, u)) return;
    fail(std::string(name) + " overlaps " + other + ", expected memory of its own");
  }

  // They share no byte, or are one and the same view.
  void apart_or_same(const char* name, const Tensor& t, const char* other, const Tensor& u) const {
    if (!overlap(t, u)) return;
    const bool same =
        t.data == u.data && t.dtype == u.dtype && (t.rows() <= 1 || t.row_stride == u.row_stride);
    if (same) return;
    fail(std::string(name) + " overlaps part of " + other +
         ", expected memory of its own or exactly that of " + other);
  }

  // Any other rule; the parts of the message are joined only when it is broken.
  template <class... Parts>
  void require(bool ok, const Parts&... parts) const {
    if (ok) return;
    std::ostringstream message;
    (message << ... << parts);
    fail(message.str());
  }

  [[noreturn]] void fail(const std::string& text) const {
    throw ContractError(std::string(op_) + ": " + text);
  }

 private:
  static std::string shape_text(const int64_t* shape, int32_t rank) {
    std::string text = "(";
    for (int32_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
  }
  static std::string shape_text(const Tensor& t) { return shape_text(t.shape, t.rank); }

  // Whether two views share a byte. Column slices of one buffer interleave without sharing any:
  // where the row strides agree, two views meet only if their columns do.
  static bool overlap(const Tensor& t, const Tensor& u) {
    if (t.size() == 0 || u.size() == 0) return false;
    const int64_t t_row = t.row_size() * size_of(t.dtype), u_row = u.row_size() * size_of(u.dtype);
    int64_t t_stride = t.rows() == 1 ? t_row : t.row_stride * size_of(t.dtype);
    int64_t u_stride = u.rows() == 1 ? u_row : u.row_stride * size_of(u.dtype);
    const auto t_begin = reinterpret_cast<int64_t>(t.data);
    const auto u_begin = reinterpret_cast<int64_t>(u.data);
    const int64_t t_end = t_begin + (t.rows() - 1) * t_stride + t_row;
    const int64_t u_end = u_begin + (u.rows() - 1) * u_stride + u_row;
    if (t_end <= u_begin || u_end <= t_begin) return false;
    // A single row has no stride of its own and takes the other's, if it is no longer than that.
    if (t.rows() == 1 && t_row <= u_stride) t_stride = u_stride;
    if (u.rows() == 1 && u_row <= t_stride) u_stride = t_stride;
    if (t_stride != u_stride) return true;
    const int64_t shift = ((u_begin - t_begin) % t_stride + t_stride) % t_stride;
    return shift < t_row || shift + u_row > t_stride;
  }

  const char* op_;
};

}  // namespace simper
