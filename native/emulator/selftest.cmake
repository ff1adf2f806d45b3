# simper_selftest, the kernels that judge the emulator (selftest.cu), plain and with sanitizers: for
# test/cuda/emulator.test.ts. Built when scripts/test-emulator.mjs asks for it.
set_source_files_properties(native/emulator/selftest.cu PROPERTIES LANGUAGE CXX)

function(add_selftest name runtime_flags flags)
  # The runtime tells the race detector about fibers and must not be seen by it.
  add_library(${name}_runtime OBJECT EXCLUDE_FROM_ALL ${SIMPER_EMULATOR_RUNTIME})
  add_executable(${name} EXCLUDE_FROM_ALL native/emulator/selftest.cu $<TARGET_OBJECTS:${name}_runtime>)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  foreach(target ${name} ${name}_runtime)
    target_include_directories(${target} PRIVATE native)
    target_compile_options(${target} PRIVATE -O2 -g -Wall -Wextra -Wno-psabi -Wno-unknown-pragmas)
  endforeach()
  target_compile_options(${name} PRIVATE ${flags})
  target_compile_options(${name}_runtime PRIVATE ${runtime_flags})
  target_link_options(${name} PRIVATE ${flags})
endfunction()

set(memory -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
add_selftest(simper_selftest "" "")
add_selftest(simper_selftest_memory "${memory}" "${memory}")
add_selftest(simper_selftest_races -DSIMPER_TSAN=1 -fsanitize=thread)
