# adamem memory from the command line, with a small random model.
add_test(NAME memory_command COMMAND ${CMAKE_CURRENT_LIST_DIR}/memory.sh $<TARGET_FILE:adamem>)
set_tests_properties(memory_command PROPERTIES LABELS cli TIMEOUT 300)
