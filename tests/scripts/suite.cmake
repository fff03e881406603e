# Checks of the source tree itself.
foreach(script include_directions file_sizes)
  add_test(NAME ${script} COMMAND ${PROJECT_SOURCE_DIR}/tests/${script}.sh ${PROJECT_SOURCE_DIR})
  set_tests_properties(${script} PROPERTIES LABELS unit TIMEOUT 120)
endforeach()
