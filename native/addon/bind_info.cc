// What this build has and finds on this machine, for `simper-native env`.
#include "addon/environment.h"
#include "comm/engines.h"

namespace simper::addon {
namespace {

Napi::Value backends(Napi::Env env) {
  Napi::Array lines = Napi::Array::New(env);
  const auto add = [&](const char* name, bool available, const std::string& detail) {
    Napi::Object line = Napi::Object::New(env);
    line.Set("name", name);
    line.Set("available", available);
    line.Set("detail", detail);
    lines.Set(lines.Length(), line);
  };
  const CudaInfo cuda = cuda_info();
  add("CUDA", cuda.available, cuda.detail);
  const comm::EngineInfo nccl = comm::nccl_info(), mpi = comm::mpi_info();
  add("NCCL", nccl.available, nccl.detail);
  add("MPI", mpi.available, mpi.detail);
  return lines;
}

Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const CpuInfo cpu = cpu_info();
  Napi::Object result = Napi::Object::New(env), processor = Napi::Object::New(env);
  processor.Set("isa", cpu.isa);
  processor.Set("threads", cpu.threads);
  processor.Set("bf16", cpu.bf16);
  processor.Set("bf16Kernel", cpu.matmul_bf16);
  processor.Set("onednn", cpu.onednn);
  result.Set("cpu", processor);
  result.Set("backends", backends(env));
  return result;
}

}  // namespace

void bind_info(Napi::Env env, Napi::Object exports) {
  exports.Set("info", Napi::Function::New(env, info, "info"));
}

}  // namespace simper::addon
