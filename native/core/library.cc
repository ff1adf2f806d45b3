#include "core/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace simper {
namespace {

namespace fs = std::filesystem;

// Folders of Python's packages below a prefix: lib/python3.12/site-packages and the like.
void add_packages(std::vector<fs::path>& folders, const fs::path& prefix,
                  const std::vector<const char*>& wheels) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(prefix / "lib", ignored)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    for (const char* packages : {"site-packages", "dist-packages"}) {
      for (const char* wheel : wheels) folders.push_back(entry.path() / packages / wheel);
    }
  }
}

// The prefix of the python3 that a shell would start.
void add_python(std::vector<fs::path>& folders, const std::vector<const char*>& wheels) {
  const char* path = std::getenv("PATH");
  std::string rest = path ? path : "";
  while (!rest.empty()) {
    const size_t end = rest.find(':');
    const fs::path folder = rest.substr(0, end);
    rest = end == std::string::npos ? "" : rest.substr(end + 1);
    std::error_code ignored;
    if (folder.empty() || !fs::exists(folder / "python3", ignored)) continue;
    return add_packages(folders, folder.parent_path(), wheels);
  }
}

std::vector<fs::path> folders_besides_the_loaders(const std::vector<const char*>& wheels) {
  std::vector<fs::path> folders;
  for (const char* name : {"CUDA_PATH", "CUDA_HOME"}) {
    const char* prefix = std::getenv(name);
    if (prefix && *prefix) folders.push_back(fs::path(prefix) / "lib64");
  }
  folders.emplace_back("/usr/local/cuda/lib64");
  const char* environment = std::getenv("VIRTUAL_ENV");
  if (environment && *environment) add_packages(folders, environment, wheels);
  add_python(folders, wheels);
  add_packages(folders, "/usr/local", wheels);
  add_packages(folders, "/usr", wheels);
  return folders;
}

}  // namespace

FoundLibrary find_library(const LibrarySearch& search,
                          const std::function<std::string(void* handle)>& problem) {
  FoundLibrary library;
  std::string problems;
  const auto usable = [&](const std::string& file) {
    void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) return false;
    const std::string wrong = problem(handle);
    if (wrong.empty()) {
      library.handle = handle;
      library.path = file;
      return true;
    }
    dlclose(handle);
    problems += "; " + file + " cannot be used: " + wrong;
    return false;
  };
  const char* wanted = std::getenv(search.variable);
  if (wanted && *wanted) {
    if (usable(wanted)) return library;
    library.missing = std::string(search.variable) + " names " + wanted +
                      (problems.empty() ? ", which cannot be opened" : problems);
    library.brief = library.missing;
    return library;
  }
  for (const char* name : search.names) {
    if (usable(name)) return library;
  }
  std::string looked = "the loader's folders";
  for (const fs::path& folder : folders_besides_the_loaders(search.wheels)) {
    std::error_code ignored;
    for (const char* name : search.names) {
      const fs::path file = folder / name;
      if (fs::exists(file, ignored) && usable(file)) return library;
    }
    looked += ", " + folder.string();
  }
  const std::string advice =
      problems + "; " + search.install + ", or name the file in " + search.variable;
  library.missing = search.title + " was not found in " + looked + advice;
  library.brief = search.title + " was not found" + advice;
  return library;
}

}  // namespace simper
