#include "comm/engines.h"
#include "core/error.h"
namespace simper::comm {
std::shared_ptr<Communicator> make_nccl(Options, Device&) {
  throw CommError("the engine nccl is not part of this build");
}
std::vector<uint8_t> nccl_unique_id() {
  throw CommError("the engine nccl is not part of this build");
}
EngineInfo nccl_info() {
  return {false, "not part of this build"};
}
}  // namespace simper::comm
