#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include "core/library.h"

namespace simper::cuda::lt {
namespace {

constexpr size_t kOldest = 12, kNewest = 13;  // major versions that cublaslt_api.h describes

// Takes the functions of an opened library; says what is wrong with it, or nothing.
std::string bind(Library& library, void* handle) {
#define BIND(ours, theirs, result, parameters)                                     \
  library.ours = reinterpret_cast<decltype(library.ours)>(dlsym(handle, #theirs)); \
  if (!library.ours) return std::string("it has no function ") + #theirs;
  SIMPER_CUBLASLT_FUNCTIONS(BIND)
#undef BIND
  const size_t version = library.version();
  const size_t major = version / 10000;
  if (major >= kOldest && major <= kNewest) return "";
  return "its version is " + std::to_string(version) + ", expected CUDA " +
         std::to_string(kOldest) + " to " + std::to_string(kNewest);
}

Library open() {
  Library library;
  const LibrarySearch search = {
      "cuBLASLt (libcublasLt.so.13 or .12)",
      "SIMPER_CUBLASLT",
      {"libcublasLt.so.13", "libcublasLt.so.12"},
      {"nvidia/cu13/lib", "nvidia/cublas/lib"},
      "install the CUDA toolkit's libcublas or `pip install nvidia-cublas`"};
  FoundLibrary found = find_library(search, [&](void* handle) { return bind(library, handle); });
  library.path = std::move(found.path);
  library.missing = std::move(found.missing);
  return library;
}

}  // namespace

const Library& library() {
  static const Library opened = open();
  return opened;
}

}  // namespace simper::cuda::lt
