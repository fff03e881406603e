# adamem judge from the command line, with a small random model.
add_test(NAME judge_command COMMAND ${CMAKE_CURRENT_LIST_DIR}/judge.sh $<TARGET_FILE:adamem>)
set_tests_properties(judge_command PROPERTIES LABELS cli TIMEOUT 300)
