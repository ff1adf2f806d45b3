// The tests of the wrappers, as the emulator runs them: to be compared with what a GPU gives.
#include "cuda/conformance.cu"
