# Generation against Transformers (goldens in data/, made by tests/parity/make_generation_goldens.py), and the command.
foreach(name generation sampling)
  add_executable(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${CMAKE_CURRENT_LIST_DIR}/model.c)
  target_link_libraries(test_${name} PRIVATE adamem_model deps::cmocka m)
  target_compile_definitions(test_${name} PRIVATE GENERATION_DATA="${CMAKE_CURRENT_LIST_DIR}/data" TEST_DATA="${ADAMEM_TEST_DATA}")
  add_test(NAME generation_${name} COMMAND test_${name})
  # More threads than cores must not spin.
  set_tests_properties(generation_${name} PROPERTIES LABELS unit TIMEOUT 600 ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()

add_test(NAME generation_command COMMAND ${CMAKE_CURRENT_LIST_DIR}/generate.sh $<TARGET_FILE:adamem> ${CMAKE_CURRENT_LIST_DIR}/data
                                         ${ADAMEM_TEST_DATA}/tokenizer-small)
set_tests_properties(generation_command PROPERTIES LABELS cli TIMEOUT 600)

# The ids of the CPU and of Transformers on the emulated GPU, where its suite is built.
if(COMMAND adamem_on_host_program)
  adamem_on_host_program(test_generation_cuda_on_host ${CMAKE_CURRENT_LIST_DIR}/test_generation_backends.c
                         ${CMAKE_CURRENT_LIST_DIR}/model.c)
  target_compile_definitions(test_generation_cuda_on_host PRIVATE GENERATION_DATA="${CMAKE_CURRENT_LIST_DIR}/data")
  target_link_libraries(test_generation_cuda_on_host PRIVATE deps::cmocka)
  add_test(NAME generation_cuda_on_host COMMAND test_generation_cuda_on_host)
  set_tests_properties(generation_cuda_on_host PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endif()
