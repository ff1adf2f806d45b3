// What this build has and finds on this machine, for `simper-native env`.
#include <dlfcn.h>

#include "addon/environment.h"

namespace simper::addon {
namespace {

struct Backend {
  const char* name;
  const char*
      library;  // looked up so that the line says what is missing: the library or our support
  const char* missing;
};

constexpr Backend kBackends[] = {
    {"NCCL", "libnccl.so.2", "NCCL is not installed"},
    {"MPI", "libmpi.so.40", "Open MPI is not installed"},
};

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
  for (const Backend& backend : kBackends) {
    void* handle = dlopen(backend.library, RTLD_LAZY | RTLD_LOCAL);
    const std::string found =
        handle ? std::string(backend.library) + " was found"
               : std::string(backend.missing) + " (" + backend.library + " not found)";
    if (handle) dlclose(handle);
    add(backend.name, false, "not part of this build; " + found);
  }
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
