// Compiles only if nccl_api.h says what the real header says. Part of a build where CMake finds
// nccl.h and CUDA's headers; produces no code.
#include <nccl.h>

#include <type_traits>

#include "comm/nccl_api.h"

namespace simper::comm::nccl {
namespace {

// Handles are pointers, enums are ints, and the id is its bytes, on both sides of a call.
template <class T>
using Plain = std::conditional_t<
    std::is_enum_v<T>, int,
    std::conditional_t<
        std::is_same_v<T, ::ncclUniqueId>, UniqueId,
        std::conditional_t<std::is_pointer_v<T> && !std::is_same_v<T, const char*>, void*, T>>>;

template <class A, class B>
inline constexpr bool kSame = false;
template <class R, class... A, class S, class... B>
inline constexpr bool kSame<R (*)(A...), S (*)(B...)> =
    sizeof...(A) == sizeof...(B) && std::is_same_v<Plain<R>, Plain<S>>&& std::is_same_v<
                                        void (*)(Plain<A>...), void (*)(Plain<B>...)>;

#define CHECK(ours, theirs, result, parameters) \
  static_assert(kSame<result(*) parameters, decltype(&::theirs)>, #theirs);
SIMPER_NCCL_FUNCTIONS(CHECK)
#undef CHECK

// Only where enums are as wide as int may one be passed for the other.
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) &&
              sizeof(ncclRedOp_t) == sizeof(int));
static_assert(sizeof(UniqueId) == sizeof(::ncclUniqueId) &&
              alignof(UniqueId) == alignof(::ncclUniqueId));

// The beginning of the real settings, of the length that tells their version.
#define CHECK(member)                                                                       \
  static_assert(std::is_same_v<decltype(Config::member), decltype(ncclConfig_t::member)> && \
                offsetof(Config, member) == offsetof(ncclConfig_t, member))
CHECK(size);
CHECK(magic);
CHECK(version);
CHECK(blocking);
#undef CHECK
static_assert(kConfigMagic == ncclConfig_t(NCCL_CONFIG_INITIALIZER).magic);
static_assert(kOldest == NCCL_VERSION(2, 14, 0) && NCCL_VERSION_CODE >= kOldest);

static_assert(kSuccess == ncclSuccess && kInProgress == ncclInProgress);
static_assert(kUint8 == ncclUint8 && kFloat32 == ncclFloat32 && kSum == ncclSum);

}  // namespace
}  // namespace simper::comm::nccl
