add_test(NAME tokenize_command COMMAND ${CMAKE_CURRENT_LIST_DIR}/tokenize.sh $<TARGET_FILE:adamem> ${ADAMEM_TEST_DATA}/tokenizer-small)
set_tests_properties(tokenize_command PROPERTIES LABELS cli TIMEOUT 120)
