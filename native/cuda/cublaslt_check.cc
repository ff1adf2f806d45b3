// Compiles only if cublaslt_api.h says what the real header says. Part of a build where CMake finds
// cublasLt.h; produces no code.
#include <cublasLt.h>

#include <type_traits>

#include "cuda/cublaslt_api.h"

namespace simper::cuda::lt {
namespace {

// Handles are pointers, and enums are ints, on both sides of a call.
template <class T>
using Plain = std::conditional_t<
    std::is_enum_v<T>, int,
    std::conditional_t<std::is_pointer_v<T> && !std::is_same_v<T, const char*>, void*, T>>;

template <class A, class B>
inline constexpr bool kSame = false;
template <class R, class... A, class S, class... B>
inline constexpr bool kSame<R (*)(A...), S (*)(B...)> =
    sizeof...(A) == sizeof...(B) && std::is_same_v<Plain<R>, Plain<S>>&& std::is_same_v<
                                        void (*)(Plain<A>...), void (*)(Plain<B>...)>;

#define CHECK(ours, theirs, result, parameters) \
  static_assert(kSame<result(*) parameters, decltype(&::theirs)>, #theirs);
SIMPER_CUBLASLT_FUNCTIONS(CHECK)
#undef CHECK

// Only where enums are as wide as int may one be passed for the other.
static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int));
static_assert(sizeof(cublasLtMatmulDescAttributes_t) == sizeof(int) &&
              sizeof(cublasLtMatmulPreferenceAttributes_t) == sizeof(int));

static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(Heuristic, workspace_bytes) ==
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(Heuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));

static_assert(kSuccess == CUBLAS_STATUS_SUCCESS && kNotSupported == CUBLAS_STATUS_NOT_SUPPORTED);
static_assert(kCompute32F == CUBLAS_COMPUTE_32F);
static_assert(kNoTranspose == CUBLAS_OP_N && kTranspose == CUBLAS_OP_T);
static_assert(kDescTransposeA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kDescTransposeB == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(kPreferenceWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kPreferenceReductions == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kPreferenceAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kPreferenceAlignmentB == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kPreferenceAlignmentC == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kPreferenceAlignmentD == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kReductionInComputeType == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);

}  // namespace
}  // namespace simper::cuda::lt
