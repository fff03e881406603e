# Where there is no GPU these check only that its absence is said cleanly; tests/gpu.sh runs the rest where there is one.
if(TARGET adamem_cuda)
  include(${CMAKE_CURRENT_LIST_DIR}/gpu_tests.cmake)

  # The parity tests (tests/parity) on a GPU, beside the programs above.
  set(PARITY ${PROJECT_SOURCE_DIR}/tests/parity)
  set(PARITY_OBJECTS)
  foreach(name parity steps invariance rules export)
    add_library(parity_gpu_${name} OBJECT ${PARITY}/test_${name}.c)
    target_compile_definitions(parity_gpu_${name} PRIVATE main=main_${name})
    target_compile_options(parity_gpu_${name} PRIVATE -Wno-missing-prototypes)
    list(APPEND PARITY_OBJECTS $<TARGET_OBJECTS:parity_gpu_${name}>)
  endforeach()
  add_library(parity_gpu_common OBJECT ${PARITY}/golden.c ${PARITY}/rig.c)
  foreach(target parity_gpu_common parity_gpu_parity parity_gpu_steps parity_gpu_invariance parity_gpu_rules parity_gpu_export)
    target_link_libraries(${target} PRIVATE adamem_trainer deps::cmocka)
    target_compile_definitions(${target} PRIVATE PARITY_DATA="${PARITY}/data" PARITY_BACKEND="cuda")
  endforeach()
  add_executable(parity_gpu ${CMAKE_CURRENT_LIST_DIR}/parity_gpu.c ${PARITY_OBJECTS} $<TARGET_OBJECTS:parity_gpu_common>)
  target_link_libraries(parity_gpu PRIVATE adamem_trainer deps::cmocka m)
  set_target_properties(parity_gpu PROPERTIES BUILD_RPATH "$ORIGIN" RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu)
  add_test(NAME test_device_cuda COMMAND test_device_cuda)
  set_tests_properties(test_device_cuda PROPERTIES LABELS "unit" TIMEOUT 120)
  add_test(NAME gpu_script_without_gpu
           COMMAND bash ${PROJECT_SOURCE_DIR}/tests/gpu.sh --build ${CMAKE_BINARY_DIR} --output ${CMAKE_BINARY_DIR}/gpu-result.txt)
  set_tests_properties(gpu_script_without_gpu PROPERTIES LABELS "unit" TIMEOUT 120 ENVIRONMENT "CUDA_VISIBLE_DEVICES=-1"
                       PASS_REGULAR_EXPRESSION "NOT RUN: no GPU")
endif()
