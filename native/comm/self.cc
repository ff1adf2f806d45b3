// A world of one: what goes to everyone stays here.
#include "comm/communicator.h"
#include "core/error.h"

namespace simper::comm {
namespace {

class Self final : public Communicator {
 public:
  using Communicator::Communicator;
  const char* engine() const override { return "self"; }

 protected:
  void connect(Context&) override { set_world(0, 1); }
  void gather(Context& context, char* to, const char* from, int64_t part_bytes) override {
    if (to != from) context.copy(to, from, part_bytes);
  }
  void scatter(Context& context, float* to, const float* from, int64_t part) override {
    if (to != from) context.copy(to, from, part * 4);
  }
  void reduce(Context&, float*, int64_t) override {}
  void send_all(Context&, char*, int64_t, int, bool) override {}
  void meet(Context&) override {}
};

}  // namespace

std::shared_ptr<Communicator> make_self(Options options) {
  return std::make_shared<Self>(std::move(options));
}

}  // namespace simper::comm
