# Parity with float64 Transformers and PEFT (the goldens in data/), and what must hold of any training step. No Python.
foreach(name parity loss steps invariance rules export)
  add_executable(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${CMAKE_CURRENT_LIST_DIR}/golden.c
                              ${CMAKE_CURRENT_LIST_DIR}/rig.c)
  target_link_libraries(test_${name} PRIVATE adamem_trainer deps::cmocka m)
  target_compile_definitions(test_${name} PRIVATE PARITY_DATA="${CMAKE_CURRENT_LIST_DIR}/data")
  add_test(NAME parity_${name} COMMAND test_${name})
  # More threads than cores must not spin.
  set_tests_properties(parity_${name} PROPERTIES LABELS parity TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()

# AdaMem against float64 PyTorch, and what must hold of it.
foreach(name adamem adamem_invariance adamem_prefix_kv adamem_budget)
  add_executable(test_${name} ${CMAKE_CURRENT_LIST_DIR}/test_${name}.c ${CMAKE_CURRENT_LIST_DIR}/golden.c
                              ${CMAKE_CURRENT_LIST_DIR}/adamem_rig.c)
  target_link_libraries(test_${name} PRIVATE adamem_model deps::cmocka m)
  target_compile_definitions(test_${name} PRIVATE PARITY_DATA="${CMAKE_CURRENT_LIST_DIR}/data")
  add_test(NAME parity_${name} COMMAND test_${name})
  set_tests_properties(parity_${name} PROPERTIES LABELS parity TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()
