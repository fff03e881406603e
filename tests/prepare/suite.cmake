# The sub-command prepare from outside.
find_program(MPIRUN mpirun)
add_test(NAME prepare COMMAND ${CMAKE_CURRENT_LIST_DIR}/prepare.sh $<TARGET_FILE:adamem> ${PROJECT_SOURCE_DIR}
                              $<$<BOOL:${MPIRUN}>:${MPIRUN}>)
set_tests_properties(prepare PROPERTIES LABELS unit TIMEOUT 300)
