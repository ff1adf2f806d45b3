#pragma once
// The part of cuBLASLt that matmul.cc uses, in our own words, so that neither its headers nor the
// library are needed to build: types and values as the library's documentation gives them, stable
// since CUDA 11. cublaslt_check.cc compares all of it with the real header where there is one.
#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>

namespace simper::cuda::lt {

using Status = int;
inline constexpr Status kSuccess = 0, kNotSupported = 15;

using Handle = struct HandleBody*;
using MatmulDesc = struct MatmulDescBody*;
using Layout = struct LayoutBody*;
using Preference = struct PreferenceBody*;

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

inline constexpr int kCompute32F = 68;  // products and sums in f32, never in TF32
inline constexpr int32_t kNoTranspose = 0, kTranspose = 1;
inline constexpr int kDescTransposeA = 3, kDescTransposeB = 4;
inline constexpr int kPreferenceWorkspaceBytes = 1, kPreferenceReductions = 3;
inline constexpr int kPreferenceAlignmentA = 5, kPreferenceAlignmentB = 6,
                     kPreferenceAlignmentC = 7, kPreferenceAlignmentD = 8;
inline constexpr uint32_t kReductionInComputeType = 2;

// One line per function: our name, the library's name, result, parameters.
#define SIMPER_CUBLASLT_FUNCTIONS(F)                                                          \
  F(version, cublasLtGetVersion, size_t, ())                                                  \
  F(status_text, cublasLtGetStatusString, const char*, (Status))                              \
  F(create, cublasLtCreate, Status, (Handle*))                                                \
  F(destroy, cublasLtDestroy, Status, (Handle))                                               \
  F(desc_create, cublasLtMatmulDescCreate, Status, (MatmulDesc*, int, cudaDataType_t))        \
  F(desc_destroy, cublasLtMatmulDescDestroy, Status, (MatmulDesc))                            \
  F(desc_set, cublasLtMatmulDescSetAttribute, Status, (MatmulDesc, int, const void*, size_t)) \
  F(layout_create, cublasLtMatrixLayoutCreate, Status,                                        \
    (Layout*, cudaDataType_t, uint64_t, uint64_t, int64_t))                                   \
  F(layout_destroy, cublasLtMatrixLayoutDestroy, Status, (Layout))                            \
  F(preference_create, cublasLtMatmulPreferenceCreate, Status, (Preference*))                 \
  F(preference_destroy, cublasLtMatmulPreferenceDestroy, Status, (Preference))                \
  F(preference_set, cublasLtMatmulPreferenceSetAttribute, Status,                             \
    (Preference, int, const void*, size_t))                                                   \
  F(heuristic, cublasLtMatmulAlgoGetHeuristic, Status,                                        \
    (Handle, MatmulDesc, Layout, Layout, Layout, Layout, Preference, int, Heuristic*, int*))  \
  F(matmul, cublasLtMatmul, Status,                                                           \
    (Handle, MatmulDesc, const void*, const void*, Layout, const void*, Layout, const void*,  \
     const void*, Layout, void*, Layout, const Algorithm*, void*, size_t, cudaStream_t))

}  // namespace simper::cuda::lt
