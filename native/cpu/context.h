#pragma once
#include <memory>
#include <string>

#include "core/device.h"

namespace simper::cpu {

class MatmulEngine;  // oneDNN's engine, primitives and scratch memory: only matmul.cc looks inside
std::shared_ptr<MatmulEngine> make_matmul_engine();

// Whether bf16 GEMMs run in hardware here, and the name of the kernel that oneDNN picks for them.
struct MatmulProbe {
  bool bf16;
  std::string kernel;
  std::string isa;
  std::string version;
};
const MatmulProbe& probe_matmul();

// Threads of the loops that the calling thread runs; 0: one per core this process may use. A
// setting of that thread: two streams never share it.
void use_threads(int threads);

struct CpuContext final : Context {
  std::shared_ptr<MatmulEngine> matmul = make_matmul_engine();
};

}  // namespace simper::cpu
