// One JavaScript function per entry of ops.def: op(stream, ...arguments). Tensors come as ids,
// scalars as numbers. A call checks the contract, enqueues and returns; nothing is allocated.
#include <tuple>

#include "addon/environment.h"
#include "core/error.h"
#include "ops/ops.h"

namespace simper::addon {
namespace {

template <class T>
T argument(Environment& environment, const Napi::Value& value, const char* op, size_t position) {
  const auto where = [&] { return std::string(op) + ": argument " + std::to_string(position + 1); };
  double number;
  if (napi_get_value_double(value.Env(), value, &number) != napi_ok) {
    throw ContractError(where() + " is not a " + (std::is_same_v<T, Tensor> ? "tensor" : "number"));
  }
  if constexpr (std::is_same_v<T, Tensor>) {
    const TensorEntry* entry = environment.tensors.find(number);
    if (!entry)
      throw ContractError(where() +
                          " is a tensor that was disposed; keep its arena while it is used");
    return entry->tensor;
  } else if constexpr (std::is_same_v<T, MatmulForm>) {
    if (number != 0 && number != 1 && number != 2)
      throw ContractError(where() + " is not nn, nt or tn");
    return static_cast<MatmulForm>(static_cast<int32_t>(number));
  } else {
    return static_cast<T>(number);
  }
}

template <auto Member, auto Check>
struct Op;

template <class... Args, void (*OpTable::*Member)(Context&, Args...), void (*Check)(Args...)>
struct Op<Member, Check> {
  static Napi::Value call(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto* name = static_cast<const char*>(info.Data());
      Environment& environment = Environment::of(info.Env());
      if (info.Length() != sizeof...(Args) + 1) {
        throw ContractError(std::string(name) + " takes " + std::to_string(sizeof...(Args)) +
                            " arguments, received " +
                            std::to_string(static_cast<int64_t>(info.Length()) - 1));
      }
      const auto* found = environment.streams.find(info[0].As<Napi::Number>().DoubleValue());
      if (!found) throw ContractError(std::string(name) + ": the stream was disposed");
      StreamEntry& entry = **found;
      const std::tuple<Args...> arguments =
          read(environment, info, name, std::index_sequence_for<Args...>());
      std::apply(Check, arguments);
      const auto function = (*environment.devices.find(entry.device()))->ops().*Member;
      entry.stream().enqueue(name, Command([function, arguments](Context& context) {
                               std::apply([&](const Args&... a) { function(context, a...); },
                                          arguments);
                             }));
      return info.Env().Undefined();
    });
  }

  template <size_t... I>
  static std::tuple<Args...> read(Environment& environment, const Napi::CallbackInfo& info,
                                  const char* name, std::index_sequence<I...>) {
    return {argument<Args>(environment, info[I + 1], name, I)...};
  }
};

}  // namespace

void bind_ops(Napi::Env env, Napi::Object exports) {
  Napi::Object ops = Napi::Object::New(env);
#define OP(name, ...)                                                                        \
  ops.Set(#name, Napi::Function::New(env, Op<&OpTable::name, &contracts::name>::call, #name, \
                                     const_cast<char*>(#name)));
#include "ops/ops.def"
#undef OP
  exports.Set("ops", ops);
}

}  // namespace simper::addon
