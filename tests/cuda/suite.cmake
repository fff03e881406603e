# Where there is no GPU these check only that its absence is said cleanly; tests/gpu.sh runs the rest where there is one.
if(TARGET adamem_cuda)
  include(${CMAKE_CURRENT_LIST_DIR}/gpu_tests.cmake)
  add_test(NAME test_device_cuda COMMAND test_device_cuda)
  set_tests_properties(test_device_cuda PROPERTIES LABELS "unit" TIMEOUT 120)
  add_test(NAME gpu_script_without_gpu
           COMMAND bash ${PROJECT_SOURCE_DIR}/tests/gpu.sh --build ${CMAKE_BINARY_DIR} --output ${CMAKE_BINARY_DIR}/gpu-result.txt)
  set_tests_properties(gpu_script_without_gpu PROPERTIES LABELS "unit" TIMEOUT 120 ENVIRONMENT "CUDA_VISIBLE_DEVICES=-1"
                       PASS_REGULAR_EXPRESSION "NOT RUN: no GPU")
endif()
