#pragma once
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace simper::comm {

// Opens nothing yet. `host_memory`: whether the tensors it will get lie there.
std::shared_ptr<Communicator> make_mpi(Options options, bool host_memory);
std::shared_ptr<Communicator> make_nccl(Options options, std::shared_ptr<Device> device);

// The 128 bytes by which the ranks of an NCCL communicator find one another. Throws CommError where
// NCCL cannot be used.
std::vector<uint8_t> nccl_unique_id();

// What `simper-native env` prints: the version, or what is missing and how to install it.
struct EngineInfo {
  bool available;
  std::string detail;
};
EngineInfo mpi_info();
EngineInfo nccl_info();

}  // namespace simper::comm
