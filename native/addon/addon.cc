#include "addon/environment.h"

namespace {

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new simper::addon::Environment());
  simper::addon::bind_handles(env, exports);
  simper::addon::bind_comm(env, exports);
  simper::addon::bind_ops(env, exports);
  simper::addon::bind_info(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(simper_native, initialize)
