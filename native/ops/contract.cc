#include "ops/contract.h"

#include <algorithm>

#include "core/error.h"

namespace simper {

namespace {

std::string shape_text(const int64_t* shape, int64_t rank) {
  std::string text = "(";
  for (int64_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

std::string shape_text(const Tensor& t) { return shape_text(t.shape, t.rank); }

// Whether two views share a byte. Column slices of one buffer interleave without sharing: when the row
// strides agree, two views meet only where their columns do.
bool overlap(const Tensor& t, const Tensor& u) {
  if (t.size() == 0 || u.size() == 0) return false;
  struct Span {
    int64_t begin, end, stride, row;
    explicit Span(const Tensor& x)
        : begin(reinterpret_cast<int64_t>(x.data)),
          stride(x.row_stride * size_of(x.dtype)),
          row(x.row_size() * size_of(x.dtype)) {
      if (x.rows() <= 1) stride = row;
      end = begin + (x.rows() - 1) * stride + row;
    }
  };
  Span a(t), b(u);
  if (a.end <= b.begin || b.end <= a.begin) return false;
  // A single row has no stride of its own: it takes the other's when it fits in one of its rows.
  if (t.rows() == 1 && a.row <= b.stride) a.stride = b.stride;
  if (u.rows() == 1 && b.row <= a.stride) b.stride = a.stride;
  if (a.stride != b.stride) return true;
  const int64_t shift = ((b.begin - a.begin) % a.stride + a.stride) % a.stride;
  return shift < a.row || shift + b.row > a.stride;
}

bool same(const Tensor& t, const Tensor& u) {
  return t.data == u.data && t.dtype == u.dtype && (t.rows() <= 1 || t.row_stride == u.row_stride);
}

}  // namespace

std::string Kind::text() const {
  std::string text;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i32}) {
    if (allows(dtype)) text += (text.empty() ? "" : " or ") + std::string(name_of(dtype));
  }
  return other ? text + " = dtype of " + other : text;
}

void Contract::fail(const std::string& text) const {
  throw ContractError(std::string(op_) + ": " + text);
}

void Contract::any(const char* name, const Tensor& t, const Kind& kind) const {
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

void Contract::tensor(const char* name, const Tensor& t, const Kind& kind, int32_t rank) const {
  any(name, t, kind);
  if (t.rank == rank) return;
  fail(std::string(name) + " has shape " + shape_text(t) + ", expected " +
       (rank == 1   ? "a vector"
        : rank == 2 ? "a matrix"
                    : "rank " + std::to_string(rank)));
}

void Contract::expect(const char* name, const Tensor& t, const Kind& kind,
                      std::initializer_list<int64_t> shape, const char* why) const {
  any(name, t, kind);
  const bool ok = t.rank == static_cast<int32_t>(shape.size()) &&
                  std::equal(shape.begin(), shape.end(), t.shape);
  if (ok) return;
  fail(std::string(name) + " has shape " + shape_text(t) + ", expected " +
       shape_text(shape.begin(), static_cast<int64_t>(shape.size())) + " = " + why);
}

std::pair<int64_t, int64_t> Contract::matrix(const char* name, const Tensor& t,
                                             const Kind& kind) const {
  tensor(name, t, kind, 2);
  return {t.shape[0], t.shape[1]};
}

int64_t Contract::vector(const char* name, const Tensor& t, const Kind& kind) const {
  tensor(name, t, kind, 1);
  return t.shape[0];
}

void Contract::like(const char* name, const Tensor& t, const char* other,
                    const Tensor& model) const {
  any(name, t, Kind(other, model));
  if (t.rank == model.rank && std::equal(t.shape, t.shape + t.rank, model.shape)) return;
  fail(std::string(name) + " has shape " + shape_text(t) + ", expected " + shape_text(model) +
       " = shape of " + other);
}

void Contract::apart(const char* name, const Tensor& t, const char* other, const Tensor& u) const {
  if (overlap(t, u)) {
    fail(std::string(name) + " overlaps " + other + ", expected memory of its own");
  }
}

void Contract::apart_or_same(const char* name, const Tensor& t, const char* other,
                             const Tensor& u) const {
  if (overlap(t, u) && !same(t, u)) {
    fail(std::string(name) + " overlaps part of " + other +
         ", expected memory of its own or exactly that of " + other);
  }
}

}  // namespace simper
