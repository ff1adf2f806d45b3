#pragma once

namespace simper::simt {

// Blocks of a launch, or the place of one among them.
struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

}  // namespace simper::simt
