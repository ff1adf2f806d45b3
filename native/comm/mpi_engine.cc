#include "comm/engines.h"
#include "core/error.h"
namespace simper::comm {
std::shared_ptr<Communicator> make_mpi(Options, bool) {
  throw CommError("the engine mpi is not part of this build");
}
EngineInfo mpi_info() {
  return {false, "not part of this build"};
}
}  // namespace simper::comm
