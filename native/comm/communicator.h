#pragma once
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/tensor.h"

namespace simper::comm {

// What a communicator is opened with. `rank` and `size` are -1 where the engine knows them itself.
struct Options {
  int rank = -1, size = -1;
  std::vector<uint8_t> unique_id;  // of the engine nccl
  double timeout_seconds = 1800;   // bound of one operation
};

// Operations so far, and the bytes of them that this rank has sent to others.
struct Counter {
  const char* op;
  int64_t calls, bytes;
};

// The ranks of a run and what they do together. Everything down to `close` runs on the worker of
// the communicator's stream, in the same order on every rank; `check_*` are for the thread that
// enqueues. A failure stays: all later operations fail with it.
class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  explicit Communicator(Options options) : options_(std::move(options)) {}
  virtual ~Communicator() = default;
  virtual const char* engine() const = 0;

  // Meets the other ranks; rank and size are known afterwards.
  void open(Context& context);
  // to (R · n) = from (n) of every rank, in the order of ranks.
  void all_gather(Context& context, Tensor to, Tensor from);
  // to (n) = sum over ranks of their from[rank · n ...].
  void reduce_scatter(Context& context, Tensor to, Tensor from);
  // x = sum of x over ranks, the same bits on each.
  void all_reduce(Context& context, Tensor x);
  void broadcast(Context& context, Tensor x, int root);
  void barrier(Context& context);
  // Host memory.
  void broadcast_bytes(Context& context, uint8_t* bytes, int64_t count, int root);
  // After the last operation. Nothing to do where the communicator has failed.
  void close(Context& context);

  // From any thread, at any time: the operation that runs and all later ones fail with `reason`.
  void abort(const std::string& reason);
  std::vector<Counter> counters() const;
  int rank() const { return rank_; }
  int size() const { return size_; }

  // Throw ContractError.
  void check_all_gather(const Tensor& to, const Tensor& from) const;
  void check_reduce_scatter(const Tensor& to, const Tensor& from) const;
  void check_all_reduce(const Tensor& x) const;
  void check_broadcast(const Tensor& x, int root) const;
  void check_root(const char* op, int root) const;

 protected:
  // What an engine does. `bytes` are those that this rank sends to others.
  virtual void connect(Context& context) = 0;
  virtual void gather(Context& context, char* to, const char* from, int64_t part_bytes) = 0;
  virtual void scatter(Context& context, float* to, const float* from, int64_t part) = 0;
  virtual void reduce(Context& context, float* x, int64_t count) = 0;
  virtual void send_all(Context& context, char* bytes, int64_t count, int root, bool host) = 0;
  virtual void meet(Context& context) = 0;
  virtual void disconnect(Context&) {}
  // Called by `abort` once the reason is known, on its caller's thread.
  virtual void on_abort() {}

  // "all_gather (op 132) on rank 0: " and what happened, as a CommError.
  [[noreturn]] void fail(const std::string& what) const;
  std::string message(const char* op, int64_t number, const std::string& what) const;
  // Throws what was said to `abort`, or that the stream is being closed.
  void check_alive(Context& context) const;
  // The first failure, that of `abort` included; null while all is well.
  std::exception_ptr failure() const;
  // Keeps a failure, unless there is one already.
  void remember(std::exception_ptr error);
  // Bytes that the running operation has sent to others.
  void sent(int64_t bytes) { sent_ += bytes; }
  void set_world(int rank, int size);

  Options options_;
  const char* op_ = "open";
  int64_t number_ = 0;  // of the running operation; the first is 1

 private:
  template <class F>
  void run(Context& context, const char* op, F&& work);

  int rank_ = 0, size_ = 1;
  int64_t sent_ = 0;
  bool open_ = false;
  mutable std::mutex mutex_;  // of what follows
  std::string reason_;
  bool aborted_ = false;
  std::exception_ptr failure_;
  std::vector<Counter> counters_;
};

// A world of one.
std::shared_ptr<Communicator> make_self(Options options);

}  // namespace simper::comm
