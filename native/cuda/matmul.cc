// Linear layers by cuBLASLt. c = a · b or c += a · b in three forms, f32 accumulation: bf16
// operands on the tensor cores, f32 operands in f32 proper (no TF32).
//
// cuBLASLt's matrices are stored by columns, so a row-major matrix is its transpose there, and
// cᵀ = bᵀ · aᵀ is computed: b comes first. Nothing is copied but operands at odd addresses that no
// algorithm takes. The algorithm of a shape is asked for once and kept. Sums that are split over
// blocks are added in f32 in workspace, in an order that the algorithm fixes: equal inputs give
// equal bits.
#include <algorithm>
#include <functional>
#include <unordered_map>

#include "cuda/cublaslt.h"
#include "cuda/device_context.h"
#include "cuda/runtime.h"
#include "ops/ops.h"

namespace simper::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // what cuBLAS advises for Hopper
enum Slot { kWorkspace, kCopyA, kCopyB, kCopyC };

// A GEMM up to the addresses: sizes, rows' strides in elements, form, types, alignment.
struct Shape {
  int64_t m, n, k, a_row, b_row, c_row;
  MatmulForm form;
  DType in, out;
  bool accumulate;
  uint32_t a_alignment, b_alignment, c_alignment;

  bool operator==(const Shape&) const = default;
};

struct ShapeHash {
  size_t operator()(const Shape& s) const {
    size_t hash = 1469598103934665603ull;  // FNV-1a over the fields
    for (int64_t field :
         {s.m, s.n, s.k, s.a_row, s.b_row, s.c_row, static_cast<int64_t>(s.form),
          static_cast<int64_t>(s.in), static_cast<int64_t>(s.out), int64_t{s.accumulate},
          int64_t{s.a_alignment}, int64_t{s.b_alignment}, int64_t{s.c_alignment}}) {
      hash = (hash ^ static_cast<size_t>(field)) * 1099511628211ull;
    }
    return hash;
  }
};

// The largest power of two that an address is a multiple of, up to 256.
uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data) | 256;
  return static_cast<uint32_t>(address & (~address + 1));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

void expect(lt::Status status, const char* what) {
  if (status == lt::kSuccess) return;
  throw DeviceError(std::string("cuBLASLt cannot ") + what + ": " +
                    lt::library().status_text(status));
}

// What cuBLASLt made for a shape. Without an algorithm it takes none of these addresses.
struct Plan {
  lt::MatmulDesc desc = nullptr;
  lt::Layout a = nullptr, b = nullptr, c = nullptr;  // in its order: a is our b
  lt::Algorithm algorithm{};
  int64_t workspace_bytes = 0;
  bool found = false;

  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    const lt::Library& library = lt::library();
    for (lt::Layout layout : {a, b, c}) {
      if (layout) library.layout_destroy(layout);
    }
    if (desc) library.desc_destroy(desc);
  }
};

void make_plan(Plan& plan, const Shape& s, lt::Handle handle) {
  const lt::Library& library = lt::library();
  expect(library.desc_create(&plan.desc, lt::kCompute32F, CUDA_R_32F), "describe a product");
  const int32_t first = s.form == MatmulForm::nt ? lt::kTranspose : lt::kNoTranspose;
  const int32_t second = s.form == MatmulForm::tn ? lt::kTranspose : lt::kNoTranspose;
  expect(library.desc_set(plan.desc, lt::kDescTransposeA, &first, sizeof first), "transpose");
  expect(library.desc_set(plan.desc, lt::kDescTransposeB, &second, sizeof second), "transpose");
  // Rows here are columns there.
  const auto layout = [&](lt::Layout* made, DType dtype, int64_t rows, int64_t columns,
                          int64_t stride) {
    expect(library.layout_create(made, type_of(dtype), static_cast<uint64_t>(columns),
                                 static_cast<uint64_t>(rows), stride),
           "describe a matrix");
  };
  if (s.form == MatmulForm::nt) {
    layout(&plan.a, s.in, s.n, s.k, s.b_row);
  } else {
    layout(&plan.a, s.in, s.k, s.n, s.b_row);
  }
  if (s.form == MatmulForm::tn) {
    layout(&plan.b, s.in, s.k, s.m, s.a_row);
  } else {
    layout(&plan.b, s.in, s.m, s.k, s.a_row);
  }
  layout(&plan.c, s.out, s.m, s.n, s.c_row);

  lt::Preference preference = nullptr;
  expect(library.preference_create(&preference), "take preferences");
  const auto workspace = static_cast<uint64_t>(kWorkspaceBytes);
  const uint32_t reductions = lt::kReductionInComputeType;
  library.preference_set(preference, lt::kPreferenceWorkspaceBytes, &workspace, sizeof workspace);
  library.preference_set(preference, lt::kPreferenceReductions, &reductions, sizeof reductions);
  const auto alignment = [&](int which, const uint32_t& bytes) {
    library.preference_set(preference, which, &bytes, sizeof bytes);
  };
  alignment(lt::kPreferenceAlignmentA, s.b_alignment);
  alignment(lt::kPreferenceAlignmentB, s.a_alignment);
  alignment(lt::kPreferenceAlignmentC, s.c_alignment);
  alignment(lt::kPreferenceAlignmentD, s.c_alignment);
  lt::Heuristic best{};
  int count = 0;
  const lt::Status status = library.heuristic(handle, plan.desc, plan.a, plan.b, plan.c, plan.c,
                                              preference, 1, &best, &count);
  library.preference_destroy(preference);
  if (status == lt::kNotSupported || (status == lt::kSuccess && count == 0)) return;
  expect(status, "choose an algorithm");
  plan.algorithm = best.algorithm;
  plan.workspace_bytes = static_cast<int64_t>(best.workspace_bytes);
  plan.found = true;
}

}  // namespace

struct MatmulEngine::State {
  lt::Handle handle = nullptr;
  std::unordered_map<Shape, Plan, ShapeHash> plans;

  State() {
    const lt::Library& library = lt::library();
    if (!library.missing.empty()) throw DeviceError(library.missing);
    expect(library.create(&handle), "start");
  }
  ~State() {
    plans.clear();
    lt::library().destroy(handle);
  }

  const Plan& plan(const Shape& shape) {
    constexpr size_t kMaxPlans = 4096;
    const auto known = plans.find(shape);
    if (known != plans.end()) return known->second;
    if (plans.size() >= kMaxPlans) plans.clear();
    Plan& plan = plans[shape];
    try {
      make_plan(plan, shape, handle);
    } catch (...) {
      plans.erase(shape);
      throw;
    }
    return plan;
  }
};

MatmulEngine::MatmulEngine() : state_(std::make_unique<State>()) {}
MatmulEngine::~MatmulEngine() = default;

namespace {

// A matrix whose rows start at multiples of 16 bytes, in scratch memory.
Tensor aligned_copy(DeviceContext& context, const Tensor& x, int slot) {
  Tensor copy = x;
  const int64_t step = 16 / size_of(x.dtype);
  copy.row_stride = (x.shape[1] + step - 1) / step * step;
  copy.data = context.scratch_bytes(x.shape[0] * copy.row_stride * size_of(x.dtype), slot);
  return copy;
}

void copy_rows(DeviceContext& context, const Tensor& to, const Tensor& from) {
  const auto element = static_cast<size_t>(size_of(from.dtype));
  check(cudaMemcpy2DAsync(to.data, static_cast<size_t>(to.row_stride) * element, from.data,
                          static_cast<size_t>(from.row_stride) * element,
                          static_cast<size_t>(from.shape[1]) * element,
                          static_cast<size_t>(from.shape[0]), cudaMemcpyDeviceToDevice,
                          context.stream),
        "cannot copy a matrix");
}

// False where cuBLASLt has no algorithm for matrices at these addresses.
bool multiply_in_place(DeviceContext& context, const Tensor& c, const Tensor& a, const Tensor& b,
                       int64_t k, MatmulForm form, bool accumulate) {
  // A single row may have any stride; cuBLASLt wants one that its elements fit into.
  const auto stride = [](const Tensor& x) { return std::max(x.row_stride, x.shape[1]); };
  const Shape shape{c.shape[0],
                    c.shape[1],
                    k,
                    stride(a),
                    stride(b),
                    stride(c),
                    form,
                    a.dtype,
                    c.dtype,
                    accumulate,
                    alignment_of(a.data),
                    alignment_of(b.data),
                    alignment_of(c.data)};
  MatmulEngine::State& engine = context.matmul.state();
  const Plan& plan = engine.plan(shape);
  if (!plan.found) return false;
  const float one = 1, beta = accumulate ? 1 : 0;
  // All of the workspace at once: it never grows.
  void* workspace = context.scratch_bytes(kWorkspaceBytes, kWorkspace);
  expect(lt::library().matmul(engine.handle, plan.desc, &one, b.data, plan.a, a.data, plan.b, &beta,
                              c.data, plan.c, c.data, plan.c, &plan.algorithm, workspace,
                              static_cast<size_t>(plan.workspace_bytes), context.stream),
         "multiply");
  return true;
}

void multiply(Context& base, Tensor c, Tensor a, Tensor b, MatmulForm form, bool accumulate) {
  auto& context = static_cast<DeviceContext&>(base);
  const int64_t m = c.shape[0], n = c.shape[1];
  const int64_t k = form == MatmulForm::tn ? a.shape[0] : a.shape[1];
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) fill(context, c, 0.0f);
    return;
  }
  if (multiply_in_place(context, c, a, b, k, form, accumulate)) return;
  const Tensor a_copy = aligned_copy(context, a, kCopyA), b_copy = aligned_copy(context, b, kCopyB);
  const Tensor c_copy = aligned_copy(context, c, kCopyC);
  copy_rows(context, a_copy, a);
  copy_rows(context, b_copy, b);
  if (accumulate) copy_rows(context, c_copy, c);
  if (!multiply_in_place(context, c_copy, a_copy, b_copy, k, form, accumulate)) {
    throw DeviceError("cuBLASLt has no algorithm for " + std::to_string(m) + "x" +
                      std::to_string(n) + "x" + std::to_string(k) + " " + name_of(a.dtype));
  }
  copy_rows(context, c, c_copy);
}

}  // namespace

void matmul(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  multiply(context, c, a, b, form, false);
}

void matmul_add(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  multiply(context, c, a, b, form, true);
}

}  // namespace simper::cuda
