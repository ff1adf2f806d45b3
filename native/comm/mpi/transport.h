#pragma once
#include <cstdint>

// What simper_mpi.so gives the addon: messages between ranks, and nothing of MPI's headers. The two
// are built together, so a class may cross the border; exceptions do not.
namespace simper::comm {

class Transport {
 public:
  virtual ~Transport() = default;

  // All calls below come from the thread that calls this one. Blocks until the other ranks of the
  // launch are here. False: see `problem`.
  virtual bool open() = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int largest_tag() const = 0;

  // Start a message of at most 2^31 - 1 bytes. It belongs to a group, 0 or 1, that is waited for as
  // a whole. Messages of the same sender and tag arrive in the order they were sent.
  virtual bool send(const char* data, int64_t bytes, int peer, int tag, int group) = 0;
  virtual bool receive(char* data, int64_t bytes, int peer, int tag, int group) = 0;
  // Moves things on; how many messages of the group are not done, or -1.
  virtual int poll(int group) = 0;
  // Whether a message from or to the peer is not done in either group.
  virtual bool waits_for(int peer) const = 0;
  // Tag of a message of the peer that nobody receives, or -1.
  virtual int unexpected(int peer) = 0;

  virtual bool close() = 0;
  // What went wrong in the last call, and with which peer (-1: none in particular).
  virtual const char* problem() const = 0;
  virtual int culprit() const = 0;
};

}  // namespace simper::comm

extern "C" {
// The one transport of the process.
simper::comm::Transport* simper_mpi_transport();
// "Open MPI v4.1.4"; works before anything is open. Valid until the next call.
const char* simper_mpi_version();
}
