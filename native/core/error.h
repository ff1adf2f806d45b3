#pragma once
#include <stdexcept>
#include <string>

namespace simper {

// An op called with arguments that break its contract; becomes ContractError in TypeScript.
struct ContractError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory that could not be allocated; becomes MemoryError in TypeScript.
struct MemoryError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Another process of the run that failed, hung or disagrees; becomes CommError in TypeScript.
struct CommError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A device that cannot be used or failed; becomes DeviceError in TypeScript.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace simper
