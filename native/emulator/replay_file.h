#pragma once
// Op cases in a file, written by test/ops/harness/replay.ts. Little-endian, nothing is aligned:
//
//   file      "SIMPERRP" · u32 version (1) · u32 cases · the cases, each after a u64 with its bytes
//   case      text op (of ops.def) · text name · u32 arguments · the arguments in the op's order
//   argument  text name · u8 kind · a number or a tensor
//     number  kind 0 · f64; a MatmulForm is its index
//     tensor  kind 1 · u8 role (0 in, 1 out, 2 update, 3 scratch) · u8 dtype (f32, bf16, f16, i32)
//     · u8 rank
//             · u32 owner, the argument whose memory it lies in (itself, or another one) · u64
//             shape[rank] · u64 row stride · u64 offset, both in elements of its dtype, from the
//             start of that memory · owners: u64 bytes · the memory as it is before the call,
//             guards and poison included · out, update: u8 tolerance (0 exact, 1 relative, 2
//             absolute) · f64 limit · u64 elements
//               · f64 reference[elements]
//   text      u32 bytes · UTF-8
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace simper::replay {

// The file is not what it should be; the message says where.
struct FileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Role : uint8_t { in, out, update, scratch };
enum class Measure : uint8_t { exact, relative, absolute };

struct Argument {
  std::string name;
  bool is_tensor = false;
  double number = 0;
  // A tensor: a view whose data is filled in once its memory has a place.
  Role role = Role::in;
  Tensor view;
  uint32_t owner = 0;
  int64_t offset = 0;             // elements
  std::vector<std::byte> before;  // owners only
  Measure measure = Measure::exact;
  double limit = 0;
  std::vector<double> reference;

  bool compared() const { return is_tensor && (role == Role::out || role == Role::update); }
};

struct Case {
  std::string op, name;
  std::vector<Argument> arguments;
};

// Reads case after case, so that memory holds one.
class File {
 public:
  explicit File(const std::string& path);
  uint32_t cases() const { return cases_; }
  // False after the last one.
  bool next(Case& next);

 private:
  [[noreturn]] void fail(const std::string& text) const;
  void read(void* to, uint64_t bytes, const char* what);

  std::string path_;
  std::ifstream in_;
  uint64_t left_ = 0;  // bytes of the file that are not read yet
  uint32_t cases_ = 0, index_ = 0;
};

}  // namespace simper::replay
