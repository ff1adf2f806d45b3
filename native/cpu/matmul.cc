// Linear layers by oneDNN, the only file that knows it. c = a · b or c += a · b in three forms; the
// matrices are plain row-major views, and the transposed operand is described by its strides. Where
// it pays, a product is cut into several calls (`rows_per_call`, `depth_per_call`) and a weight is
// first brought into the kernel's own layout (`pays_to_block`).
//
// Primitives are cached per shape (creating one costs about a millisecond), so callers bucket their
// row counts. Scratch memory is ours (oneDNN's "user" mode): it grows to the largest need once and
// stays. On a CPU without bf16 arithmetic oneDNN's bf16 GEMM is slower than f32 or missing: there,
// operands are widened into scratch and multiplied in f32.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "cpu/context.h"
#include "ops/ops.h"

namespace simper::cpu {
namespace {

using dnnl::memory;

memory::data_type dnnl_type(DType dtype) {
  return dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
}

// A GEMM up to the addresses: logical sizes, strides between rows and columns, types.
struct Shape {
  int64_t m, n, k;
  int64_t a_row, a_column, b_row, b_column, c_row;
  DType in, out;
  bool accumulate;
  bool block_b;  // b is reordered into the layout that the kernel likes best

  bool operator==(const Shape&) const = default;
};

struct ShapeHash {
  std::size_t operator()(const Shape& s) const {
    std::size_t hash = 1469598103934665603ull;  // FNV-1a over the fields
    for (int64_t field : {s.m, s.n, s.k, s.a_row, s.a_column, s.b_row, s.b_column, s.c_row,
                          static_cast<int64_t>(s.in), static_cast<int64_t>(s.out),
                          int64_t{s.accumulate}, int64_t{s.block_b}}) {
      hash = (hash ^ static_cast<std::size_t>(field)) * 1099511628211ull;
    }
    return hash;
  }
};

memory::desc plain_b(const Shape& s) {
  return memory::desc({s.k, s.n}, dnnl_type(s.in), memory::dims{s.b_row, s.b_column});
}

dnnl::matmul::primitive_desc describe(const Shape& s, const dnnl::engine& engine) {
  const memory::desc a({s.m, s.k}, dnnl_type(s.in), memory::dims{s.a_row, s.a_column});
  const memory::desc b =
      s.block_b ? memory::desc({s.k, s.n}, dnnl_type(s.in), memory::format_tag::any) : plain_b(s);
  const memory::desc c({s.m, s.n}, dnnl_type(s.out), memory::dims{s.c_row, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.accumulate) {
    dnnl::post_ops add;
    add.append_sum(1.0f);
    attr.set_post_ops(add);
  }
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, a, b, c, attr);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), attr, engine);
#endif
}

std::string isa_name() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::sse41:
      return "SSE4.1";
    case dnnl::cpu_isa::avx:
      return "AVX";
    case dnnl::cpu_isa::avx2:
      return "AVX2";
    case dnnl::cpu_isa::avx512_core:
      return "AVX-512";
    case dnnl::cpu_isa::avx512_core_vnni:
      return "AVX-512 with VNNI";
    case dnnl::cpu_isa::avx512_core_bf16:
      return "AVX-512 with bf16";
    case dnnl::cpu_isa::avx512_core_amx:
      return "AVX-512 with AMX (int8, bf16)";
    default: {
      char text[32];
      std::snprintf(text, sizeof text, "oneDNN ISA 0x%x",
                    static_cast<unsigned>(dnnl::get_effective_cpu_isa()));
      return text;
    }
  }
}

// Whether a kernel that oneDNN picked for bf16 operands computes in bf16. By name, because it also
// has kernels that widen every operand ("gemm:jit" of 2.x, "gemm:jit:bf16" of 3.x) and are slower
// than f32. The good ones are "brg:avx512_core_bf16" and "brg:avx512_core_amx_bf16" of 2.x,
// "brg_matmul:avx512_core_bf16" and "brg_matmul:avx10_1_512_amx" of 3.x.
bool is_bf16_kernel(const std::string& name) {
  if (!name.starts_with("brg")) return false;
  for (const char* isa : {"bf16", "fp16", "amx", "avx10"}) {
    if (name.find(isa) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

const MatmulProbe& probe_matmul() {
  static const MatmulProbe probe = [] {
    const dnnl_version_t* v = dnnl_version();
    MatmulProbe result{
        false, "f32, bf16 operands are widened", isa_name(),
        std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch)};
    try {
      const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
      const Shape shape{256, 256, 256, 256, 1, 1, 256, 256, DType::bf16, DType::f32, false, false};
      const std::string kernel = describe(shape, engine).impl_info_str();
      if (is_bf16_kernel(kernel)) {
        result.bf16 = true;
        result.kernel = kernel;
      }
    } catch (const dnnl::error&) {
      // An ISA without bf16 refuses the primitive: the fallback stands.
    }
    return result;
  }();
  return probe;
}

class MatmulEngine {
 public:
  void run(const Shape& shape, void* c, void* a, void* b) {
    Primitive& p = primitive(shape);
    p.a.set_data_handle(a);
    if (p.reorder_b) {
      p.plain_b.set_data_handle(b);
      b = reserve(blocked_b_, p.b.get_desc().get_size());
    }
    p.b.set_data_handle(b);
    p.c.set_data_handle(c);
    p.scratch.set_data_handle(reserve(scratch_, p.scratch_bytes));
    if (p.reorder_b) p.reorder_b.execute(stream_, p.plain_b, p.b);
    p.matmul.execute(stream_, p.arguments);
    stream_.wait();
  }

  // x widened to a dense f32 matrix in buffer `slot` (0: a, 1: b, 2: c).
  Tensor widen(Context& context, Tensor x, int slot, bool copy) {
    Tensor wide = x;
    wide.dtype = DType::f32;
    wide.row_stride = x.row_size();
    wide.data = reserve(wide_[slot], x.size() * 4);
    if (copy) convert(context, wide, x);
    return wide;
  }

 private:
  struct Primitive {
    dnnl::matmul matmul;
    dnnl::reorder reorder_b;  // empty where b is taken as it comes
    memory a, b, c, scratch, plain_b;
    std::size_t scratch_bytes;
    std::unordered_map<int, memory> arguments;
  };
  struct Buffer {
    std::shared_ptr<void> data;
    std::size_t bytes = 0;
  };

  Primitive& primitive(const Shape& shape) {
    if (const auto found = cache_.find(shape); found != cache_.end()) return found->second;
    constexpr std::size_t kMaxPrimitives = 4096;  // tens of kilobytes each
    if (cache_.size() >= kMaxPrimitives) cache_.clear();
    const auto desc = describe(shape, engine_);
    Primitive p;
    p.matmul = dnnl::matmul(desc);
    p.a = memory(desc.src_desc(), engine_, nullptr);
    p.b = memory(desc.weights_desc(), engine_, nullptr);
    p.c = memory(desc.dst_desc(), engine_, nullptr);
    p.scratch = memory(desc.scratchpad_desc(), engine_, nullptr);
    p.scratch_bytes = desc.scratchpad_desc().get_size();
    if (desc.weights_desc() != plain_b(shape)) {
      p.plain_b = memory(plain_b(shape), engine_, nullptr);
      p.reorder_b = dnnl::reorder(p.plain_b, p.b);
    }
    p.arguments = {{DNNL_ARG_SRC, p.a},
                   {DNNL_ARG_WEIGHTS, p.b},
                   {DNNL_ARG_DST, p.c},
                   {DNNL_ARG_SCRATCHPAD, p.scratch}};
    return cache_.emplace(shape, std::move(p)).first->second;
  }

  static void* reserve(Buffer& buffer, std::size_t bytes) {
    if (bytes > buffer.bytes) {
      buffer.data.reset();
      void* data = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
      if (!data)
        throw MemoryError("matmul: cannot allocate " + std::to_string(bytes) +
                          " bytes of scratch memory");
      buffer = {std::shared_ptr<void>(data, std::free), bytes};
    }
    return buffer.data.get();
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Shape, Primitive, ShapeHash> cache_;
  Buffer scratch_, blocked_b_, wide_[3];
};

std::shared_ptr<MatmulEngine> make_matmul_engine() {
  return std::make_shared<MatmulEngine>();
}

namespace {

// Rows of c that one call of oneDNN computes. Its bf16 kernels cut m into equal blocks of at most
// 64 rows, whatever the divisor: 1888 = 32 x 59 takes blocks of 59 rows, which fill no tile, and
// five times as long as 1856 = 29 x 64 (2.6.3; 269 against 1420 GFLOP/s). Multiples of 64 are safe;
// the rows beyond go by themselves. f32 kernels have no such gaps.
//
// The gradient of an LM head has more rows than a cache has room for: in one call its transposed
// operand is copied as a whole first; by parts of 8192 rows it takes two thirds of the time.
int64_t rows_per_call(const Shape& s) {
  constexpr int64_t kBlock = 64, kFew = 256, kMost = 8192;
  if (s.in != DType::bf16 || s.m < kFew) return s.m;
  if (s.a_column != 1 && s.m > kMost) return kMost;
  return s.m / kBlock * kBlock;
}

// Columns of a that one call multiplies. Over an LM head's 49,152 the kernel reads b again and
// again from memory; sums of 8192 added up in f32 take half of the time.
int64_t depth_per_call(const Shape& s) {
  constexpr int64_t kMost = 8192;
  return s.in == DType::bf16 && s.a_column == 1 && s.k >= 2 * kMost ? kMost : s.k;
}

// Whether to reorder b for a call: a pass over k · n values against m of them saved a strided
// read. It pays from some hundred rows on, for weights that stay in the cache until they are used.
bool pays_to_block(const Shape& s) {
  constexpr int64_t kRows = 512, kBytes = 16 << 20;
  return s.in == DType::bf16 && s.a_column == 1 && s.m >= kRows && s.k * s.n * 2 <= kBytes;
}

void* element(Tensor x, int64_t index) {
  return static_cast<char*>(x.data) + index * size_of(x.dtype);
}

void multiply(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form, bool accumulate) {
  MatmulEngine& engine = *static_cast<CpuContext&>(context).matmul;
  const int64_t m = c.shape[0], n = c.shape[1];
  const int64_t k = form == MatmulForm::tn ? a.shape[0] : a.shape[1];
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate) fill(context, c, 0.0f);
    return;
  }
  const Tensor out = c;
  if (a.dtype == DType::bf16 && !probe_matmul().bf16) {
    a = engine.widen(context, a, 0, true);
    b = engine.widen(context, b, 1, true);
    if (c.dtype == DType::bf16) c = engine.widen(context, c, 2, false);
  }
  Shape shape{m, n, k, 0, 0, 0, 0, 0, a.dtype, c.dtype, accumulate, false};
  shape.a_row = form == MatmulForm::tn ? 1 : a.row_stride;
  shape.a_column = form == MatmulForm::tn ? a.row_stride : 1;
  shape.b_row = form == MatmulForm::nt ? 1 : b.row_stride;
  shape.b_column = form == MatmulForm::nt ? b.row_stride : 1;
  const int64_t rows = rows_per_call(shape), depth = depth_per_call(shape);
  if (depth < k && c.dtype != DType::f32) c = engine.widen(context, c, 2, false);
  shape.out = c.dtype;
  shape.c_row = c.row_stride;
  try {
    for (int64_t from = 0; from < k; from += shape.k) {
      shape.k = std::min(depth, k - from);
      shape.accumulate = accumulate || from > 0;
      for (int64_t done = 0; done < m; done += shape.m) {
        shape.m = std::min(rows, m - done);
        shape.block_b = pays_to_block(shape);
        engine.run(shape, element(c, done * shape.c_row),
                   element(a, done * shape.a_row + from * shape.a_column),
                   element(b, from * shape.b_row));
      }
    }
  } catch (const dnnl::error& error) {
    throw DeviceError("matmul: oneDNN failed on " + std::to_string(m) + "x" + std::to_string(n) +
                      "x" + std::to_string(k) + " " + name_of(a.dtype) + ": " + error.what());
  }
  if (out.dtype != c.dtype) convert(context, out, c);
}

}  // namespace

void matmul(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  multiply(context, c, a, b, form, false);
}

void matmul_add(Context& context, Tensor c, Tensor a, Tensor b, MatmulForm form) {
  multiply(context, c, a, b, form, true);
}

}  // namespace simper::cpu
