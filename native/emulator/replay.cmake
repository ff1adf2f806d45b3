# simper_replay, the runner of op cases (replay.cc), plain and with sanitizers: for scripts/sanitize-cuda.sh and
# scripts/mutate.mjs, built only when asked for. What is not a kernel of ours is taken from the addon, without
# instrumentation: the CPU device, whose oneDNN and OpenMP the race detector does not know.
# mutate.mjs compiles single kernels as this build does, and links them with what else it has.
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set_target_properties(simper_native PROPERTIES EXPORT_COMPILE_COMMANDS ON)

function(add_replay name runtime_flags flags)
  # The runtime tells the race detector about fibers and must not be seen by it.
  add_library(${name}_runtime OBJECT EXCLUDE_FROM_ALL ${SIMPER_EMULATOR_RUNTIME})
  add_executable(${name} EXCLUDE_FROM_ALL
    native/core/event.cc
    native/core/worker_stream.cc
    native/emulator/device.cc
    native/emulator/matmul.cc
    native/emulator/replay.cc
    native/emulator/replay_file.cc
    native/emulator/replay_judge.cc
    native/ops/contracts.cc
    ${SIMPER_CUDA_KERNELS}
    $<TARGET_OBJECTS:${name}_runtime>
    $<FILTER:$<TARGET_OBJECTS:simper_native>,INCLUDE,/native/cpu/>)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  foreach(target ${name} ${name}_runtime)
    target_include_directories(${target} PRIVATE native)
    target_compile_options(${target} PRIVATE -O2 -g -fno-math-errno -fno-trapping-math -Wall -Wextra -Wno-psabi)
  endforeach()
  target_compile_options(${name} PRIVATE ${flags})
  target_compile_options(${name}_runtime PRIVATE ${runtime_flags})
  target_link_libraries(${name} PRIVATE ${DNNL_LIBRARY} OpenMP::OpenMP_CXX ${CMAKE_DL_LIBS})
  target_link_options(${name} PRIVATE ${flags})
endfunction()

set(memory -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
add_replay(simper_replay "" "")
add_replay(simper_replay_memory "${memory}" "${memory}")
add_replay(simper_replay_races -DSIMPER_TSAN=1 -fsanitize=thread)
