// simper_mpi.so: the only code that knows MPI. Opened by mpi_engine.cc when a run has several
// ranks.
#include "comm/mpi/transport.h"

#include <mpi.h>

#include <string>
#include <vector>

namespace simper::comm {
namespace {

constexpr int kGroups = 2;

class MpiTransport final : public Transport {
 public:
  bool open() override {
    int initialized = 0, provided = 0;
    MPI_Initialized(&initialized);
    if (initialized) return wrong("MPI has been initialised by someone else in this process");
    if (!succeeded(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init"))
      return false;
    if (provided < MPI_THREAD_FUNNELED)
      return wrong("this MPI cannot be called from a thread that is not the first");
    // A communicator of our own: nobody else's messages, and errors come back as codes.
    if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "MPI_Comm_dup")) return false;
    MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world_, &rank_);
    MPI_Comm_size(world_, &size_);
    int found = 0;
    int* bound = nullptr;
    MPI_Comm_get_attr(world_, MPI_TAG_UB, &bound, &found);
    if (found) largest_tag_ = *bound;
    return true;
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int largest_tag() const override { return largest_tag_; }

  bool send(const char* data, int64_t bytes, int peer, int tag, int group) override {
    MPI_Request request;
    const int status =
        MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, world_, &request);
    return add(status, request, {peer, -1}, group);
  }

  bool receive(char* data, int64_t bytes, int peer, int tag, int group) override {
    MPI_Request request;
    const int status =
        MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, peer, tag, world_, &request);
    return add(status, request, {peer, static_cast<int>(bytes)}, group);
  }

  int poll(int group) override {
    Group& messages = groups_[group];
    if (messages.open == 0) return 0;
    const int count = static_cast<int>(messages.requests.size());
    messages.done.resize(messages.requests.size());
    messages.statuses.resize(messages.requests.size());
    int done = 0;
    const int status = MPI_Testsome(count, messages.requests.data(), &done, messages.done.data(),
                                    messages.statuses.data());
    if (status != MPI_SUCCESS && status != MPI_ERR_IN_STATUS) {
      culprit_ = -1;
      succeeded(status, "MPI_Testsome");
      return -1;
    }
    for (int i = 0; i < done; ++i) {
      const auto which = static_cast<size_t>(messages.done[static_cast<size_t>(i)]);
      const MPI_Status& found = messages.statuses[static_cast<size_t>(i)];
      const Message& message = messages.messages[which];
      culprit_ = message.peer;
      if (status == MPI_ERR_IN_STATUS && found.MPI_ERROR != MPI_SUCCESS) {
        int kind = found.MPI_ERROR;
        MPI_Error_class(found.MPI_ERROR, &kind);
        if (kind == MPI_ERR_TRUNCATE) {
          wrong("sent more than the " + std::to_string(message.expected) + " bytes expected");
        } else {
          succeeded(found.MPI_ERROR, "a message");
        }
        return -1;
      }
      if (message.expected < 0) continue;
      int bytes = 0;
      MPI_Get_count(&found, MPI_BYTE, &bytes);
      if (bytes != message.expected) {
        wrong("sent " + std::to_string(bytes) + " bytes, expected " +
              std::to_string(message.expected));
        return -1;
      }
    }
    messages.open -= done;
    if (messages.open == 0) {
      messages.requests.clear();
      messages.messages.clear();
    }
    return messages.open;
  }

  bool waits_for(int peer) const override {
    for (const Group& group : groups_) {
      for (size_t i = 0; i < group.requests.size(); ++i) {
        if (group.requests[i] != MPI_REQUEST_NULL && group.messages[i].peer == peer) return true;
      }
    }
    return false;
  }

  int unexpected(int peer) override {
    int found = 0;
    MPI_Status status;
    MPI_Iprobe(peer, MPI_ANY_TAG, world_, &found, &status);
    return found ? status.MPI_TAG : -1;
  }

  bool close() override {
    MPI_Comm_free(&world_);
    return succeeded(MPI_Finalize(), "MPI_Finalize");
  }

  const char* problem() const override { return problem_.c_str(); }
  int culprit() const override { return culprit_; }

 private:
  struct Message {
    int peer, expected;  // bytes to receive, -1 where they are sent
  };
  struct Group {
    std::vector<MPI_Request> requests;  // null once done
    std::vector<Message> messages;
    std::vector<int> done;
    std::vector<MPI_Status> statuses;
    int open = 0;
  };

  bool add(int status, MPI_Request request, Message message, int group) {
    culprit_ = message.peer;
    if (!succeeded(status, "a message")) return false;
    groups_[group].requests.push_back(request);
    groups_[group].messages.push_back(message);
    ++groups_[group].open;
    return true;
  }

  bool wrong(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  bool succeeded(int status, const char* what) {
    if (status == MPI_SUCCESS) return true;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(status, text, &length);
    return wrong(std::string(what) + " failed: " + text);
  }

  MPI_Comm world_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  int largest_tag_ = 32767;  // what the standard promises
  Group groups_[kGroups];
  std::string problem_;
  int culprit_ = -1;
};

}  // namespace
}  // namespace simper::comm

simper::comm::Transport* simper_mpi_transport() {
  // Never destroyed: at exit, MPI may be gone before it.
  static auto* transport = new simper::comm::MpiTransport;
  return transport;
}

const char* simper_mpi_version() {
  static std::string version;
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  version = text;
  version = version.substr(0, version.find_first_of(",\n"));
  return version.c_str();
}
