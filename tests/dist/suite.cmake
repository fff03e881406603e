# Ranks: the same program alone (no launcher) and under mpirun with 1, 2 and 4 ranks.
adamem_test(${CMAKE_CURRENT_LIST_DIR}/test_reduction.c dist)

# One thread per rank: 4 ranks share what may be 2 cores.
set(DIST_ENVIRONMENT OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
set_tests_properties(test_reduction PROPERTIES ENVIRONMENT "${DIST_ENVIRONMENT}")

# A start by a launcher that Open MPI does not understand is refused, not run N times over.
add_test(NAME dist_foreign_launcher COMMAND test_reduction)
set_tests_properties(dist_foreign_launcher PROPERTIES LABELS dist TIMEOUT 60
                     ENVIRONMENT "${DIST_ENVIRONMENT};SLURM_STEP_NUM_TASKS=4"
                     PASS_REGULAR_EXPRESSION "SLURM_STEP_NUM_TASKS is 4, but MPI sees one rank")

# A start without launcher enters no folder that it would share with others like it.
add_test(NAME dist_no_session_folder COMMAND test_reduction)
set_tests_properties(dist_no_session_folder PROPERTIES LABELS dist TIMEOUT 60
                     ENVIRONMENT "${DIST_ENVIRONMENT};OMPI_MCA_orte_tmpdir_base=/proc/no-folder-here")

find_program(MPIRUN mpirun)
if(MPIRUN)
  set(MPIRUN_COMMAND ${MPIRUN} --oversubscribe --bind-to none)
  foreach(ranks 1 2 4)
    add_test(NAME dist_${ranks}_ranks COMMAND ${MPIRUN_COMMAND} -n ${ranks} $<TARGET_FILE:test_reduction>)
    set_tests_properties(dist_${ranks}_ranks PROPERTIES LABELS dist TIMEOUT 300 PROCESSORS ${ranks}
                         ENVIRONMENT "${DIST_ENVIRONMENT}")
  endforeach()
  # The others are waiting in a collective when one rank fails alone: the job must end with that rank's status.
  add_test(NAME dist_lone_failure
           COMMAND sh -c "\"$@\"; test $? -eq 3" sh ${MPIRUN_COMMAND} -n 3 $<TARGET_FILE:test_reduction> lone-failure)
  set_tests_properties(dist_lone_failure PROPERTIES LABELS dist TIMEOUT 60 PROCESSORS 3 ENVIRONMENT "${DIST_ENVIRONMENT}")
  add_test(NAME dist_early_failure
           COMMAND bash ${PROJECT_SOURCE_DIR}/tests/nccl/fault.sh none bad 10 "^error: rank 2 failed: the GPU is lost"
                   ${MPIRUN_COMMAND} -n 3 $<TARGET_FILE:test_reduction> early-failure)
  set_tests_properties(dist_early_failure PROPERTIES LABELS dist TIMEOUT 60 PROCESSORS 3 ENVIRONMENT "${DIST_ENVIRONMENT}")
else()
  add_test(NAME dist_ranks COMMAND ${CMAKE_COMMAND} -E echo "skipped: mpirun is missing (apt-get install openmpi-bin)")
  set_tests_properties(dist_ranks PROPERTIES LABELS dist SKIP_REGULAR_EXPRESSION "skipped:")
endif()
