# `cmake --build BUILD --target bundle`: one tarball for machines that have neither our libraries nor Open MPI; `gpu_suite`: the
# same with the tests that need a GPU. See bundle.sh.
set(BUNDLE_NAME adamem-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(BUNDLE_FILE ${CMAKE_BINARY_DIR}/${BUNDLE_NAME}.tar.gz)
set(BUNDLE_COMMAND ${CMAKE_CURRENT_LIST_DIR}/bundle.sh --program $<TARGET_FILE:adamem> --mpirun ${MPIEXEC_EXECUTABLE})
add_custom_target(bundle COMMAND ${BUNDLE_COMMAND} --output ${BUNDLE_FILE} DEPENDS adamem VERBATIM USES_TERMINAL
                  COMMENT "Making ${BUNDLE_FILE}")
if(TARGET test_ops_cuda)
  set(SUITE_FILE ${CMAKE_BINARY_DIR}/${BUNDLE_NAME}-gpu-suite.tar.gz)
  set(SUITE_TARGETS adamem test_ops_cuda test_attention_cuda test_device_cuda bench_attention bench_lora parity_gpu)
  if(TARGET test_nccl)
    list(APPEND BUNDLE_COMMAND --nccl-test $<TARGET_FILE:test_nccl>)
    list(APPEND SUITE_TARGETS test_nccl)
  endif()
  add_custom_target(gpu_suite COMMAND ${BUNDLE_COMMAND} --gpu-tests ${CMAKE_BINARY_DIR}/gpu --output ${SUITE_FILE}
                    DEPENDS ${SUITE_TARGETS} VERBATIM USES_TERMINAL COMMENT "Making ${SUITE_FILE}")
endif()
