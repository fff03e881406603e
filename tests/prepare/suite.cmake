# The sub-command prepare from outside. The environment serves containers and the sanitizer build, as in tests/dist.
find_program(MPIRUN mpirun)
add_test(NAME prepare COMMAND ${CMAKE_CURRENT_LIST_DIR}/prepare.sh $<TARGET_FILE:adamem> ${PROJECT_SOURCE_DIR}
                              $<$<BOOL:${MPIRUN}>:${MPIRUN}>)
set_tests_properties(prepare PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT
  "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/dist/mpi_leaks.supp:print_suppressions=0;ASAN_OPTIONS=fast_unwind_on_malloc=0")
