#pragma once
#include <functional>
#include <string>
#include <vector>

namespace simper {

// A library that is opened when it is there, and where to look for it.
struct LibrarySearch {
  std::string title;                // "cuBLASLt", in messages
  const char* variable;             // the environment variable that names the file
  std::vector<const char*> names;   // as the loader knows it, the preferred one first
  std::vector<const char*> wheels;  // folders of Python's packages that may hold it
  const char* install;              // what to do where it is not found
};

struct FoundLibrary {
  void* handle = nullptr;
  // As the loader knows it.
  std::string path;
  // Empty where it can be used; else what is wrong and where it was looked for.
  std::string missing;
  // The same without the places.
  std::string brief;
};

// Looks in this order: the file that the variable names, the loader's own places (LD_LIBRARY_PATH,
// ldconfig), CUDA_PATH, CUDA_HOME, /usr/local/cuda, and the packages of a Python environment.
// `problem` says what is wrong with an opened library, or nothing.
FoundLibrary find_library(const LibrarySearch& search,
                          const std::function<std::string(void* handle)>& problem);

}  // namespace simper
