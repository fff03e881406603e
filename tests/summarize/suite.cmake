# adamem summarize from the command line, with a small random model.
add_test(NAME summarize_command COMMAND ${CMAKE_CURRENT_LIST_DIR}/summarize.sh $<TARGET_FILE:adamem>)
set_tests_properties(summarize_command PROPERTIES LABELS cli TIMEOUT 600)
