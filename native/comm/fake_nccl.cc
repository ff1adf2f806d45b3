// A stand-in for libnccl, for tests of nccl.cc on machines without a GPU: the same functions,
// between processes of one machine, on memory of the host. Part of builds with the emulated device;
// the tests name it in SIMPER_NCCL. As in the real one, a call only starts an operation, which a
// thread then does: what the caller polls is ncclCommGetAsyncError.
//
// The ranks share a file in /dev/shm that the unique id names. A rank copies a chunk of its data
// there, all meet, each takes what it needs, all meet again.
//
// SIMPER_FAKE_NCCL_FAULT=n makes operation n (from 1) of this rank end with an error of the
// connection.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "comm/nccl_api.h"

namespace simper::comm::nccl {

constexpr size_t kChunk = 1 << 16;  // bytes of a rank at a time
constexpr int kMaxRanks = 16;
constexpr Status kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6;

struct Shared {
  std::atomic<int> arrived;
  std::atomic<int> round;
  char data[kMaxRanks][kChunk];
};

struct CommBody {
  int rank = 0, size = 1;
  std::string name;
  Shared* shared = nullptr;
  std::thread worker;
  std::atomic<Status> status = kInProgress;
  std::atomic<bool> given_up = false;
  int operations = 0, fault = 0;

  // Whether all came.
  bool meet() {
    const int round = shared->round.load();
    if (shared->arrived.fetch_add(1) == size - 1) {
      shared->arrived = 0;
      shared->round.fetch_add(1);
      return true;
    }
    while (shared->round.load() == round) {
      if (given_up) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    return true;
  }

  // Hands `bytes` of every rank to `take(rank, at, data, length)`, ranks in order, chunk by chunk.
  template <class Take>
  bool exchange(const char* from, size_t bytes, Take&& take) {
    for (size_t at = 0; at < bytes; at += kChunk) {
      const size_t length = std::min(kChunk, bytes - at);
      std::memcpy(shared->data[rank], from + at, length);
      if (!meet()) return false;
      for (int r = 0; r < size; ++r) take(r, at, shared->data[r], length);
      if (!meet()) return false;
    }
    return true;
  }

  template <class Work>
  Status start(Work&& work) {
    if (worker.joinable()) worker.join();
    status = kInProgress;
    if (++operations == fault) {
      status = kRemoteError;
      return kSuccess;  // the error comes by ncclCommGetAsyncError, as from a thread of the library
    }
    worker = std::thread([this, work] {
      if (work()) status = kSuccess;
    });
    return kInProgress;
  }
};

}  // namespace simper::comm::nccl

using namespace simper::comm::nccl;

extern "C" {

Status ncclGetVersion(int* version) {
  *version = 21900;
  return kSuccess;
}

const char* ncclGetErrorString(Status status) {
  switch (status) {
    case kSuccess:
      return "no error";
    case kSystemError:
      return "unhandled system error";
    case kInvalidArgument:
      return "invalid argument";
    case kRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(Comm) {
  return "";
}

Status ncclGetUniqueId(UniqueId* id) {
  std::memset(id->bytes, 0, sizeof id->bytes);
  std::snprintf(
      id->bytes, sizeof id->bytes, "/simper-fake-nccl-%d-%lld", getpid(),
      static_cast<long long>(std::chrono::steady_clock::now().time_since_epoch().count()));
  return kSuccess;
}

Status ncclCommInitRankConfig(Comm* comm, int size, UniqueId id, int rank, Config* config) {
  if (size > kMaxRanks || rank >= size || config->blocking != 0 || config->magic != kConfigMagic ||
      config->size != sizeof(Config))
    return kInvalidArgument;
  auto* body = new CommBody;
  body->rank = rank;
  body->size = size;
  body->name = id.bytes;
  if (const char* fault = std::getenv("SIMPER_FAKE_NCCL_FAULT")) body->fault = std::atoi(fault);
  const int file = shm_open(body->name.c_str(), O_RDWR | O_CREAT, 0600);
  void* memory = MAP_FAILED;
  if (file >= 0 && ftruncate(file, sizeof(Shared)) == 0)
    memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file >= 0) close(file);
  if (memory == MAP_FAILED) {
    delete body;
    return kSystemError;
  }
  body->shared = static_cast<Shared*>(memory);
  *comm = body;
  body->worker = std::thread([body] {
    if (!body->meet()) return;
    shm_unlink(body->name.c_str());  // all have it; the first one's call removes it
    body->status = kSuccess;
  });
  return kInProgress;
}

Status ncclCommGetAsyncError(Comm comm, Status* status) {
  *status = comm->status;
  return kSuccess;
}

Status ncclCommFinalize(Comm comm) {
  return comm->start([comm] { return comm->meet(); });
}

Status ncclCommDestroy(Comm comm) {
  if (comm->worker.joinable()) comm->worker.join();
  munmap(comm->shared, sizeof(Shared));
  delete comm;
  return kSuccess;
}

Status ncclCommAbort(Comm comm) {
  comm->given_up = true;
  shm_unlink(comm->name.c_str());
  return ncclCommDestroy(comm);
}

Status ncclAllGather(const void* from, void* to, size_t count, int type, Comm comm, CudaStream) {
  if (type != kUint8) return kInvalidArgument;
  // The source may be part of the target.
  return comm->start([=] {
    const std::vector<char> mine(static_cast<const char*>(from),
                                 static_cast<const char*>(from) + count);
    return comm->exchange(mine.data(), count, [=](int r, size_t at, const char* data, size_t n) {
      std::memcpy(static_cast<char*>(to) + static_cast<size_t>(r) * count + at, data, n);
    });
  });
}

Status ncclBroadcast(const void* from, void* to, size_t count, int type, int root, Comm comm,
                     CudaStream) {
  if (type != kUint8) return kInvalidArgument;
  return comm->start([=] {
    return comm->exchange(static_cast<const char*>(from), count,
                          [=](int r, size_t at, const char* data, size_t n) {
                            if (r == root) std::memcpy(static_cast<char*>(to) + at, data, n);
                          });
  });
}

Status ncclAllReduce(const void* from, void* to, size_t count, int type, int op, Comm comm,
                     CudaStream) {
  if (type != kFloat32 || op != kSum) return kInvalidArgument;
  return comm->start([=] {
    return comm->exchange(static_cast<const char*>(from), 4 * count,
                          [=](int r, size_t at, const char* data, size_t n) {
                            const auto* source = reinterpret_cast<const float*>(data);
                            auto* target = static_cast<float*>(to) + at / 4;
                            for (size_t i = 0; i < n / 4; ++i)
                              target[i] = r == 0 ? source[i] : target[i] + source[i];
                          });
  });
}

Status ncclReduceScatter(const void* from, void* to, size_t count, int type, int op, Comm comm,
                         CudaStream) {
  if (type != kFloat32 || op != kSum) return kInvalidArgument;
  return comm->start([=] {
    std::vector<float> sum(count);
    const size_t begin = static_cast<size_t>(comm->rank) * count;  // my part, in elements
    const auto take = [&](int r, size_t at, const char* data, size_t n) {
      const auto* source = reinterpret_cast<const float*>(data);
      for (size_t i = 0; i < n / 4; ++i) {
        const size_t element = at / 4 + i;
        if (element < begin || element >= begin + count) continue;
        float& target = sum[element - begin];
        target = r == 0 ? source[i] : target + source[i];
      }
    };
    const size_t bytes = 4 * count * static_cast<size_t>(comm->size);
    if (!comm->exchange(static_cast<const char*>(from), bytes, take)) return false;
    std::memcpy(to, sum.data(), 4 * count);
    return true;
  });
}

}  // extern "C"
