#pragma once
#include <memory>

namespace simper::cuda {

// cuBLASLt's handle of a stream and the algorithms it chose: only matmul.cc looks inside. The
// library is opened when the first stream is.
class MatmulEngine {
 public:
  MatmulEngine();
  ~MatmulEngine();
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace simper::cuda
