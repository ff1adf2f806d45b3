#include "comm/communicator.h"

#include <algorithm>

#include "core/error.h"

namespace simper::comm {
namespace {

int64_t bytes_of(const Tensor& tensor) {
  return tensor.size() * size_of(tensor.dtype);
}

std::string quantity(int64_t count, const char* what) {
  return std::to_string(count) + " " + what;
}

void check_dense(const char* op, const char* name, const Tensor& tensor) {
  if (tensor.dense()) return;
  throw ContractError(std::string(op) + ": " + name + " is a strided view, expected a dense one");
}

void check_f32(const char* op, const char* name, const Tensor& tensor) {
  if (tensor.dtype == DType::f32) return;
  throw ContractError(std::string(op) + ": " + name + " has dtype " + name_of(tensor.dtype) +
                      ", expected f32: sums of other types would depend on the number of ranks");
}

// `whole` is R parts in the order of ranks; `part` is this rank's, inside it or apart from it.
void check_parts(const char* op, const char* whole_name, const Tensor& whole, const char* part_name,
                 const Tensor& part, int rank, int size) {
  check_dense(op, whole_name, whole);
  check_dense(op, part_name, part);
  if (whole.dtype != part.dtype) {
    throw ContractError(std::string(op) + ": " + part_name + " has dtype " + name_of(part.dtype) +
                        ", expected " + name_of(whole.dtype) + " = that of " + whole_name);
  }
  if (whole.size() != size * part.size()) {
    throw ContractError(std::string(op) + ": " + whole_name + " has " +
                        quantity(whole.size(), "elements") + ", expected " +
                        std::to_string(size * part.size()) + " = " + std::to_string(size) +
                        " ranks · " + std::to_string(part.size()) + " of " + part_name);
  }
  const auto* begin = static_cast<const char*>(whole.data);
  const auto* from = static_cast<const char*>(part.data);
  const int64_t part_bytes = bytes_of(part);
  const bool apart = from + part_bytes <= begin || from >= begin + bytes_of(whole);
  if (!apart && part_bytes > 0 && from != begin + rank * part_bytes) {
    throw ContractError(std::string(op) + ": " + part_name + " lies over " + whole_name +
                        ", expected it apart or as this rank's own part of it");
  }
}

}  // namespace

template <class F>
void Communicator::run(Context& context, const char* op, F&& work) {
  ++number_;
  op_ = op;
  sent_ = 0;
  if (const std::exception_ptr error = failure()) std::rethrow_exception(error);
  try {
    if (!open_) fail("the communicator is not open");
    check_alive(context);
    work();
  } catch (...) {
    remember(std::current_exception());
    throw;
  }
  std::lock_guard lock(mutex_);
  const auto known = std::find_if(counters_.begin(), counters_.end(),
                                  [&](const Counter& counter) { return counter.op == op; });
  Counter& counter = known != counters_.end() ? *known : counters_.emplace_back(Counter{op, 0, 0});
  ++counter.calls;
  counter.bytes += sent_;
}

void Communicator::open(Context& context) {
  try {
    check_alive(context);
    connect(context);
    open_ = true;
  } catch (...) {
    remember(std::current_exception());
    throw;
  }
}

void Communicator::all_gather(Context& context, Tensor to, Tensor from) {
  run(context, "all_gather", [&] {
    gather(context, static_cast<char*>(to.data), static_cast<const char*>(from.data),
           bytes_of(from));
  });
}

void Communicator::reduce_scatter(Context& context, Tensor to, Tensor from) {
  run(context, "reduce_scatter", [&] {
    scatter(context, static_cast<float*>(to.data), static_cast<const float*>(from.data), to.size());
  });
}

void Communicator::all_reduce(Context& context, Tensor x) {
  run(context, "all_reduce", [&] { reduce(context, static_cast<float*>(x.data), x.size()); });
}

void Communicator::broadcast(Context& context, Tensor x, int root) {
  run(context, "broadcast",
      [&] { send_all(context, static_cast<char*>(x.data), bytes_of(x), root, false); });
}

void Communicator::broadcast_bytes(Context& context, uint8_t* bytes, int64_t count, int root) {
  run(context, "broadcast_bytes",
      [&] { send_all(context, reinterpret_cast<char*>(bytes), count, root, true); });
}

void Communicator::barrier(Context& context) {
  run(context, "barrier", [&] { meet(context); });
}

void Communicator::close(Context& context) {
  if (!open_ || failure()) return;
  op_ = "close";
  try {
    disconnect(context);
  } catch (...) {
    remember(std::current_exception());
    throw;
  }
  open_ = false;
}

void Communicator::abort(const std::string& reason) {
  {
    std::lock_guard lock(mutex_);
    if (aborted_ || failure_) return;
    aborted_ = true;
    reason_ = reason;
  }
  on_abort();
}

std::vector<Counter> Communicator::counters() const {
  std::lock_guard lock(mutex_);
  return counters_;
}

std::exception_ptr Communicator::failure() const {
  std::lock_guard lock(mutex_);
  if (!failure_ && aborted_) return std::make_exception_ptr(CommError(reason_));
  return failure_;
}

void Communicator::remember(std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
}

std::string Communicator::message(const char* op, int64_t number, const std::string& what) const {
  const std::string which = number > 0 ? " (op " + std::to_string(number) + ")" : "";
  return std::string(op) + which + " on rank " + std::to_string(rank_) + ": " + what;
}

void Communicator::fail(const std::string& what) const {
  throw CommError(message(op_, number_, what));
}

void Communicator::check_alive(Context& context) const {
  if (context.stopping()) fail("the stream was closed");
  std::lock_guard lock(mutex_);
  if (aborted_) throw CommError(reason_);
}

void Communicator::set_world(int rank, int size) {
  if (options_.size >= 0 && (options_.rank != rank || options_.size != size)) {
    throw CommError(std::string("open: ") + engine() + " says rank " + std::to_string(rank) +
                    " of " + std::to_string(size) + ", expected rank " +
                    std::to_string(options_.rank) + " of " + std::to_string(options_.size));
  }
  rank_ = rank;
  size_ = size;
}

void Communicator::check_all_gather(const Tensor& to, const Tensor& from) const {
  check_parts("all_gather", "to", to, "from", from, rank_, size_);
}

void Communicator::check_reduce_scatter(const Tensor& to, const Tensor& from) const {
  check_f32("reduce_scatter", "from", from);
  check_parts("reduce_scatter", "from", from, "to", to, rank_, size_);
}

void Communicator::check_all_reduce(const Tensor& x) const {
  check_f32("all_reduce", "x", x);
  check_dense("all_reduce", "x", x);
}

void Communicator::check_broadcast(const Tensor& x, int root) const {
  check_dense("broadcast", "x", x);
  check_root("broadcast", root);
}

void Communicator::check_root(const char* op, int root) const {
  if (root >= 0 && root < size_) return;
  throw ContractError(std::string(op) + ": root is " + std::to_string(root) +
                      ", expected a rank from 0 to " + std::to_string(size_ - 1));
}

}  // namespace simper::comm
