#include "core/worker_stream.h"

#include <algorithm>
#include <chrono>
#include <string>

#include "core/error.h"

namespace simper {

WorkerStream::WorkerStream(std::unique_ptr<StreamHooks> hooks, bool synchronous)
    : hooks_(std::move(hooks)),
      ring_(1024),
      synchronous_(synchronous),
      worker_([this] { work(); }) {}

WorkerStream::~WorkerStream() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  worker_.join();
  const auto closed =
      std::make_exception_ptr(DeviceError("the stream was closed before it got here"));
  for (; count_ > 0; --count_, head_ = (head_ + 1) % ring_.size()) {
    if (ring_[head_].done) ring_[head_].done(closed);
    if (ring_[head_].event) ring_[head_].event->record(ring_[head_].number, nullptr, closed);
  }
}

void WorkerStream::enqueue(const char* op, Command command) {
  push({op, std::move(command), nullptr, nullptr});
  if (!synchronous_) return;
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return count_ == 0 && !busy_; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void WorkerStream::finish(std::function<void(std::exception_ptr)> done) {
  push({nullptr, Command(), std::move(done), nullptr});
}

void WorkerStream::record(std::shared_ptr<Event> event) {
  const int64_t number = event->issue();
  push({nullptr, Command(), nullptr, std::move(event), number});
}

void WorkerStream::push(Entry entry) {
  {
    std::lock_guard lock(mutex_);
    if (count_ == ring_.size()) {
      std::vector<Entry> larger(2 * ring_.size());
      for (std::size_t i = 0; i < count_; ++i)
        larger[i] = std::move(ring_[(head_ + i) % ring_.size()]);
      ring_ = std::move(larger);
      head_ = 0;
    }
    ring_[(head_ + count_) % ring_.size()] = std::move(entry);
    ++count_;
  }
  wake_.notify_one();
}

void WorkerStream::work() {
  const std::unique_ptr<Context> context = hooks_->make_context();
  context->stop_with(stop_, stuck_);
  for (;;) {
    Entry entry;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || count_ > 0; });
      if (stop_) return;
      entry = std::move(ring_[head_]);
      ring_[head_] = Entry();
      head_ = (head_ + 1) % ring_.size();
      --count_;
      busy_ = true;
    }
    run(entry, *context);
    if (!synchronous_) continue;
    entry = Entry();  // lets go of what the work kept alive before the caller goes on
    {
      std::lock_guard lock(mutex_);
      busy_ = false;
    }
    idle_.notify_all();
  }
}

void WorkerStream::run(Entry& entry, Context& context) {
  if (entry.event) return entry.event->record(entry.number, &context, error_);
  if (entry.op == nullptr) {
    settle(context);
    return entry.done(std::exchange(error_, nullptr));
  }
  if (error_) return;
  const auto start = std::chrono::steady_clock::now();
  try {
    context.begin(entry.op);
    entry.command(context);
    context.end();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    add_time(entry.op, taken.count());
  } catch (const ContractError&) {
    error_ = std::current_exception();  // its message names the op already
  } catch (const CommError&) {
    error_ = std::current_exception();  // so does this one
  } catch (const std::exception& error) {
    error_ = std::make_exception_ptr(DeviceError(std::string(entry.op) + ": " + error.what()));
  }
  if (synchronous_) settle(context);
}

void WorkerStream::settle(Context& context) {
  try {
    hooks_->settle(context);
    context.run_settle_checks();
  } catch (const std::exception&) {
    if (!error_) error_ = std::current_exception();
  }
}

void WorkerStream::add_time(const char* op, double seconds) {
  std::lock_guard lock(profile_mutex_);
  const auto known = std::find_if(profile_.begin(), profile_.end(),
                                  [&](const OpTime& time) { return time.op == op; });
  OpTime& time = known != profile_.end() ? *known : profile_.emplace_back(OpTime{op, 0, 0});
  ++time.calls;
  time.seconds += seconds;
}

std::vector<OpTime> WorkerStream::take_profile() {
  std::lock_guard lock(profile_mutex_);
  return std::exchange(profile_, {});
}

}  // namespace simper
