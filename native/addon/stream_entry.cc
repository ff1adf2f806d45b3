#include "addon/environment.h"
#include "core/error.h"

namespace simper::addon {

struct StreamEntry::Pending {
  StreamEntry* self;
  Napi::Promise::Deferred deferred;
  Napi::ObjectReference keep;
  std::exception_ptr error;
};

StreamEntry::StreamEntry(Napi::Env env, double device, std::shared_ptr<Device> owner,
                         bool synchronous)
    : env_(env),
      device_(device),
      owner_(std::move(owner)),
      settle_(Napi::ThreadSafeFunction::New(
          env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "simper stream", 0, 1)),
      stream_(owner_->open_stream(synchronous)) {
  settle_.Unref(env);
  // Hooks run last in, first out: this one joins the worker before Node tears the function above
  // down.
  napi_add_env_cleanup_hook(env, close, this);
}

StreamEntry::~StreamEntry() {
  napi_remove_env_cleanup_hook(env_, close, this);
  close(this);
}

void StreamEntry::close(void* entry) {
  auto* self = static_cast<StreamEntry*>(entry);
  if (!self->stream_) return;
  for (const auto& call : self->before_close_) call();
  // A worker that waits for others inside a library cannot be joined. Its stream outlives us, and
  // promises that it may never settle do not keep the process.
  if (self->stream_->stuck()) {
    self->settle_.Unref(self->env_);
    self->stream_.release();
    return;
  }
  self->stream_
      .reset();  // joins; promises still waiting are rejected through the function, so it goes last
  self->settle_.Release();
}

Napi::Value StreamEntry::promise(Napi::Env env, Napi::Value keep) {
  auto* pending = new Pending{this, Napi::Promise::Deferred::New(env), {}, nullptr};
  if (keep.IsObject()) pending->keep = Napi::Persistent(keep.As<Napi::Object>());
  if (pending_++ == 0) settle_.Ref(env);
  Napi::ThreadSafeFunction settle = settle_;
  stream_->finish([settle, pending](std::exception_ptr error) {
    pending->error = error;
    settle.BlockingCall(pending, [](Napi::Env env, Napi::Function, Pending* pending) {
      if (env == nullptr) return;
      try {
        pending->self->settle(env, pending);
      } catch (const Napi::Error&) {
        // The worker thread is being terminated: nobody is left to hear of the promise.
      }
    });
  });
  return pending->deferred.Promise();
}

void StreamEntry::settle(Napi::Env env, Pending* pending) {
  // `this` may be a closed stream whose entry is gone: it is touched only while it is open.
  const std::unique_ptr<Pending> owned(pending);
  Environment& environment = Environment::of(env);
  bool open = false;
  environment.streams.for_each(
      [&](std::unique_ptr<StreamEntry>& entry) { open |= entry.get() == this; });
  if (open && --pending_ == 0) settle_.Unref(env);
  if (pending->error) {
    pending->deferred.Reject(to_js_error(env, pending->error).Value());
  } else {
    pending->deferred.Resolve(env.Undefined());
  }
}

}  // namespace simper::addon
