# Op tests: every op of a backend against the float64 reference, from one table of shapes.
set(OP_TEST_SOURCES ops/harness.c ops/reference.c ops/op_tests.c ops/linear_cases.c ops/lora_cases.c ops/network_cases.c ops/training_cases.c
                    ops/gradient_cases.c ops/differences.c ops/memory_reference.c ops/memory_cases.c ops/memory_loss_cases.c
                    ops/memory_gradient_cases.c)

function(adamem_op_test name source labels)
  add_executable(${name} ${source} ${OP_TEST_SOURCES})
  target_link_libraries(${name} PRIVATE adamem_kernels adamem_io deps::cmocka m)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT 600)
endfunction()

adamem_op_test(test_ops ops/test_ops.c unit)
# The ops of the next lower level; and oneDNN limited to AVX2, which has no bf16 product: the widening path of such machines.
add_test(NAME test_ops_lower_level COMMAND test_ops 1 2)
add_test(NAME test_ops_widened COMMAND test_ops 0 2)
set_tests_properties(test_ops_lower_level test_ops_widened PROPERTIES LABELS unit TIMEOUT 600 SKIP_RETURN_CODE 77)
set_tests_properties(test_ops_widened PROPERTIES ENVIRONMENT "DNNL_MAX_CPU_ISA=AVX2;ONEDNN_MAX_CPU_ISA=AVX2")
