# The encoder on the emulated GPU: the same goldens, the same tolerances. Its op calls and copies know no backend.
if(COMMAND adamem_on_host_program)
  adamem_on_host_program(test_encoder_cuda_on_host ${CMAKE_CURRENT_SOURCE_DIR}/unit/test_encoder.c)
  target_compile_definitions(test_encoder_cuda_on_host PRIVATE TEST_DATA="${ADAMEM_TEST_DATA}" TEST_BACKEND=BACKEND_CUDA)
  target_link_libraries(test_encoder_cuda_on_host PRIVATE deps::cmocka)
  add_test(NAME test_encoder_cuda_on_host COMMAND test_encoder_cuda_on_host)
  set_tests_properties(test_encoder_cuda_on_host PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endif()
