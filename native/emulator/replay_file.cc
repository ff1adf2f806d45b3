#include "emulator/replay_file.h"

#include <bit>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace simper::replay {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian");

constexpr char kMagic[] = "SIMPERRP";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kMostArguments = 64;
constexpr uint64_t kMostElements = uint64_t{1} << 40;  // no product of two of them overflows

// The fields of one case, front to back. Throws FileError without saying which file.
class Cursor {
 public:
  Cursor(const std::byte* begin, uint64_t bytes) : next_(begin), left_(bytes) {}

  const std::byte* take(uint64_t bytes, const char* what) {
    if (bytes > left_) {
      throw FileError(std::string(what) + " needs " + std::to_string(bytes) + " bytes, " +
                      std::to_string(left_) + " are left of the case");
    }
    const std::byte* taken = next_;
    next_ += bytes;
    left_ -= bytes;
    return taken;
  }
  template <class T>
  T value(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  // A byte that names one of `count` things.
  template <class T>
  T choice(int count, const char* what) {
    const auto number = value<uint8_t>(what);
    if (number >= count) {
      throw FileError(std::string(what) + " is " + std::to_string(number) + ", expected below " +
                      std::to_string(count));
    }
    return static_cast<T>(number);
  }
  // A size, stride or count.
  int64_t size(const char* what) {
    const auto number = value<uint64_t>(what);
    if (number > kMostElements) {
      throw FileError(std::string(what) + " is " + std::to_string(number) + ", expected at most " +
                      std::to_string(kMostElements));
    }
    return static_cast<int64_t>(number);
  }
  std::string text(const char* what) {
    const auto length = value<uint32_t>(what);
    return {reinterpret_cast<const char*>(take(length, what)), length};
  }
  uint64_t left() const { return left_; }

 private:
  const std::byte* next_;
  uint64_t left_;
};

void require(bool ok, const std::string& text) {
  if (!ok) throw FileError(text);
}

void read_tensor(Cursor& cursor, Argument& argument, uint32_t index) {
  Tensor& view = argument.view;
  argument.role = cursor.choice<Role>(4, "role");
  view.dtype = cursor.choice<DType>(4, "dtype");
  view.rank = cursor.value<uint8_t>("rank");
  require(view.rank >= 1 && view.rank <= kMaxRank,
          "rank is " + std::to_string(view.rank) + ", expected 1 to " + std::to_string(kMaxRank));
  argument.owner = cursor.value<uint32_t>("owner");
  int64_t elements = 1;
  for (int32_t i = 0; i < view.rank; ++i) {
    view.shape[i] = cursor.size("shape");
    elements *= view.shape[i];
    require(elements <= static_cast<int64_t>(kMostElements), "the shape is too large");
  }
  view.row_stride = cursor.size("row stride");
  argument.offset = cursor.size("offset");
  if (argument.owner == index) {
    const int64_t bytes = cursor.size("size of the memory");
    const std::byte* before = cursor.take(static_cast<uint64_t>(bytes), "memory");
    argument.before.assign(before, before + bytes);
  }
  if (!argument.compared()) return;
  argument.measure = cursor.choice<Measure>(3, "tolerance");
  argument.limit = cursor.value<double>("limit");
  const int64_t count = cursor.size("size of the reference");
  require(count == elements, "the reference has " + std::to_string(count) +
                                 " elements, the tensor " + std::to_string(elements));
  const std::byte* reference =
      cursor.take(static_cast<uint64_t>(count) * sizeof(double), "reference");
  argument.reference.resize(static_cast<size_t>(count));
  if (count > 0) {
    std::memcpy(argument.reference.data(), reference, static_cast<size_t>(count) * sizeof(double));
  }
}

// The owner is a tensor with memory, and every row lies inside it.
void check_place(const Case& one, const Argument& argument) {
  const auto where = [&] { return "argument " + argument.name + ": "; };
  require(argument.owner < one.arguments.size(),
          where() + "owner is " + std::to_string(argument.owner) + ", expected below " +
              std::to_string(one.arguments.size()));
  const Argument& owner = one.arguments[argument.owner];
  require(owner.is_tensor && &one.arguments[owner.owner] == &owner,
          where() + "lies over " + owner.name + ", which has no memory of its own");
  const Tensor& view = argument.view;
  if (view.size() == 0) return;
  require(view.row_stride >= view.row_size(), where() + "its rows overlap");
  const __int128 end =
      static_cast<__int128>(view.rows() - 1) * view.row_stride + view.row_size() + argument.offset;
  require(end * size_of(view.dtype) <= static_cast<__int128>(owner.before.size()),
          where() + "its rows end behind the " + std::to_string(owner.before.size()) +
              " bytes of its memory");
}

Case read_case(Cursor& cursor) {
  Case one;
  one.op = cursor.text("op");
  one.name = cursor.text("name");
  const auto count = cursor.value<uint32_t>("number of arguments");
  require(count <= kMostArguments,
          std::to_string(count) + " arguments, expected at most " + std::to_string(kMostArguments));
  one.arguments.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    Argument& argument = one.arguments[i];
    argument.name = cursor.text("name of an argument");
    argument.is_tensor = cursor.choice<int>(2, "kind") == 1;
    if (argument.is_tensor) {
      read_tensor(cursor, argument, i);
    } else {
      argument.number = cursor.value<double>("number");
    }
  }
  for (const Argument& argument : one.arguments) {
    if (argument.is_tensor) check_place(one, argument);
  }
  require(cursor.left() == 0, std::to_string(cursor.left()) + " bytes too many");
  return one;
}

}  // namespace

File::File(const std::string& path) : path_(path), in_(path, std::ios::binary) {
  std::error_code error;
  left_ = std::filesystem::file_size(path, error);
  if (error || !in_) fail("cannot be read: " + (error ? error.message() : "no permission"));
  char magic[sizeof kMagic - 1];
  read(magic, sizeof magic, "the first bytes");
  uint32_t version;
  read(&version, sizeof version, "version");
  if (std::memcmp(magic, kMagic, sizeof magic) != 0) fail("is not a replay file");
  if (version != kVersion) {
    fail("version " + std::to_string(version) + ", expected " + std::to_string(kVersion));
  }
  read(&cases_, sizeof cases_, "number of cases");
}

bool File::next(Case& next) {
  if (index_ == cases_) {
    if (left_ > 0) fail(std::to_string(left_) + " bytes follow the last case");
    return false;
  }
  ++index_;
  uint64_t bytes;
  read(&bytes, sizeof bytes, "its size");
  if (bytes > left_) {
    fail("it has " + std::to_string(bytes) + " bytes, the file " + std::to_string(left_) + " more");
  }
  std::vector<std::byte> body(bytes);
  read(body.data(), bytes, "the case");
  try {
    Cursor cursor(body.data(), bytes);
    next = read_case(cursor);
  } catch (const FileError& error) {
    fail(error.what());
  }
  return true;
}

void File::read(void* to, uint64_t bytes, const char* what) {
  if (bytes > left_) {
    fail("ends inside " + std::string(what) + ": " + std::to_string(bytes) + " bytes, " +
         std::to_string(left_) + " are left");
  }
  in_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
  if (!in_) fail("cannot be read");
  left_ -= bytes;
}

void File::fail(const std::string& text) const {
  const std::string where =
      index_ > 0 ? "case " + std::to_string(index_) + " of " + std::to_string(cases_) + ": " : "";
  throw FileError(path_ + ": " + where + text + "; write it again: node scripts/replay-cases.mjs");
}

}  // namespace simper::replay
