#pragma once
// The part of NCCL that nccl.cc uses, in our own words, so that neither its header nor the library
// is needed to build: types and values as the library's documentation gives them, stable since NCCL
// 2.14. nccl_check.cc compares all of it with the real header where there is one.
#include <cstddef>

namespace simper::comm::nccl {

using Status = int;
inline constexpr Status kSuccess = 0, kInProgress = 7;

using Comm = struct CommBody*;
using CudaStream = void*;  // cudaStream_t

struct UniqueId {
  char bytes[128];
};

// The settings of version 2.14, which later ones read as such and fill up.
struct Config {
  size_t size;
  unsigned int magic;
  unsigned int version;
  int blocking;
};
inline constexpr unsigned int kConfigMagic = 0xcafebeef;
inline constexpr int kOldest = 21400;  // 10000 · major + 100 · minor + patch

inline constexpr int kUint8 = 1, kFloat32 = 7;  // data types
inline constexpr int kSum = 0;

// One line per function: our name, the library's name, result, parameters.
#define SIMPER_NCCL_FUNCTIONS(F)                                                                 \
  F(version, ncclGetVersion, Status, (int*))                                                     \
  F(status_text, ncclGetErrorString, const char*, (Status))                                      \
  F(last_error, ncclGetLastError, const char*, (Comm))                                           \
  F(unique_id, ncclGetUniqueId, Status, (UniqueId*))                                             \
  F(init, ncclCommInitRankConfig, Status, (Comm*, int, UniqueId, int, Config*))                  \
  F(finalize, ncclCommFinalize, Status, (Comm))                                                  \
  F(destroy, ncclCommDestroy, Status, (Comm))                                                    \
  F(abort, ncclCommAbort, Status, (Comm))                                                        \
  F(async_error, ncclCommGetAsyncError, Status, (Comm, Status*))                                 \
  F(all_gather, ncclAllGather, Status, (const void*, void*, size_t, int, Comm, CudaStream))      \
  F(reduce_scatter, ncclReduceScatter, Status,                                                   \
    (const void*, void*, size_t, int, int, Comm, CudaStream))                                    \
  F(all_reduce, ncclAllReduce, Status, (const void*, void*, size_t, int, int, Comm, CudaStream)) \
  F(broadcast, ncclBroadcast, Status, (const void*, void*, size_t, int, int, Comm, CudaStream))

}  // namespace simper::comm::nccl
