#include "core/event.h"

#include <chrono>

#include "core/device.h"
#include "core/error.h"

namespace simper {

int64_t Event::issue() {
  std::lock_guard lock(mutex_);
  return ++issued_;
}

int64_t Event::issued() const {
  std::lock_guard lock(mutex_);
  return issued_;
}

void Event::record(int64_t number, Context* context, std::exception_ptr error) {
  if (context && !error) {
    try {
      mark(*context);
    } catch (...) {
      error = std::current_exception();
    }
  }
  {
    std::lock_guard lock(mutex_);
    reached_ = number;
    if (context) checks_ = context->settle_checks();
    if (error) {
      failed_ = number;
      error_ = error;
    }
  }
  reached_changed_.notify_all();
}

void Event::wait(int64_t number, Context& context) {
  std::exception_ptr error;
  std::shared_ptr<SettleChecks> checks;
  {
    std::unique_lock lock(mutex_);
    // The slices are for a stream that is closed while it waits: nobody notifies it then.
    constexpr std::chrono::milliseconds kSlice(20);
    while (!reached_changed_.wait_for(lock, kSlice, [&] { return reached_ >= number; })) {
      if (context.stopping()) throw DeviceError("the stream was closed while it waited");
    }
    if (failed_ >= number) error = error_;
    checks = checks_;
  }
  context.adopt(checks);
  if (error) std::rethrow_exception(error);
  follow(context);
}

std::shared_ptr<Event> Device::make_event() {
  return std::make_shared<Event>();
}

}  // namespace simper
