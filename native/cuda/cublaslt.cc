#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace simper::cuda::lt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
constexpr size_t kOldest = 12, kNewest = 13;  // major versions that cublaslt_api.h describes

// Folders of Python's packages below a prefix: lib/python3.12/site-packages and the like.
void add_packages(std::vector<fs::path>& folders, const fs::path& prefix) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(prefix / "lib", ignored)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    for (const char* packages : {"site-packages", "dist-packages"}) {
      for (const char* wheel : {"nvidia/cu13/lib", "nvidia/cublas/lib"}) {
        folders.push_back(entry.path() / packages / wheel);
      }
    }
  }
}

// The prefix of the python3 that a shell would start.
void add_python(std::vector<fs::path>& folders) {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  while (!rest.empty()) {
    const size_t end = rest.find(':');
    const fs::path folder = rest.substr(0, end);
    rest = end == std::string::npos ? "" : rest.substr(end + 1);
    std::error_code ignored;
    if (folder.empty() || !fs::exists(folder / "python3", ignored)) continue;
    return add_packages(folders, folder.parent_path());
  }
}

std::vector<fs::path> folders_besides_the_loaders() {
  std::vector<fs::path> folders;
  for (const char* name : {"CUDA_PATH", "CUDA_HOME"}) {
    const char* prefix = std::getenv(name);
    if (prefix && *prefix) folders.push_back(fs::path(prefix) / "lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  const char* environment = std::getenv("VIRTUAL_ENV");
  if (environment && *environment) add_packages(folders, environment);
  add_python(folders);
  add_packages(folders, "/usr/local");
  add_packages(folders, "/usr");
  return folders;
}

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
  std::string problems;
  const auto usable = [&](const std::string& file) {
    void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return false;
    const std::string problem = bind(library, handle);
    if (problem.empty()) {
      library.path = file;
      return true;
    }
    dlclose(handle);
    problems += "; " + file + " cannot be used: " + problem;
    return false;
  };
  const char* wanted = std::getenv("SIMPER_CUBLASLT");
  if (wanted && *wanted) {
    if (usable(wanted)) return library;
    library.missing = std::string("SIMPER_CUBLASLT names ") + wanted +
                      (problems.empty() ? ", which cannot be opened" : problems);
    return library;
  }
  for (const char* name : kNames) {
    if (usable(name)) return library;
  }
  std::string looked = "the loader's folders";
  for (const fs::path& folder : folders_besides_the_loaders()) {
    std::error_code ignored;
    for (const char* name : kNames) {
      const fs::path file = folder / name;
      if (fs::exists(file, ignored) && usable(file)) return library;
    }
    looked += ", " + folder.string();
  }
  library.missing = std::string("cuBLASLt (") + kNames[0] + " or .12) was not found in " + looked +
                    problems +
                    "; install the CUDA toolkit's libcublas or `pip install nvidia-cublas`, or "
                    "name the file in SIMPER_CUBLASLT";
  return library;
}

}  // namespace

const Library& library() {
  static const Library opened = open();
  return opened;
}

}  // namespace simper::cuda::lt
