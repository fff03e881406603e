# `cmake --build BUILD --target bundle`: one tarball for machines that have neither our libraries nor Open MPI. See bundle.sh.
set(BUNDLE_NAME adamem-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(BUNDLE_FILE ${CMAKE_BINARY_DIR}/${BUNDLE_NAME}.tar.gz)
set(BUNDLE_COMMAND ${CMAKE_CURRENT_LIST_DIR}/bundle.sh --program $<TARGET_FILE:adamem> --mpirun ${MPIEXEC_EXECUTABLE}
                   --output ${BUNDLE_FILE})
set(BUNDLE_TARGETS adamem)
if(TARGET test_ops_cuda)
  list(APPEND BUNDLE_COMMAND --gpu-tests ${CMAKE_BINARY_DIR}/gpu)
  list(APPEND BUNDLE_TARGETS test_ops_cuda test_attention_cuda test_device_cuda bench_attention bench_lora)
  if(TARGET test_nccl)
    list(APPEND BUNDLE_COMMAND --nccl-test $<TARGET_FILE:test_nccl>)
    list(APPEND BUNDLE_TARGETS test_nccl)
  endif()
endif()
add_custom_target(bundle COMMAND ${BUNDLE_COMMAND} DEPENDS ${BUNDLE_TARGETS} VERBATIM USES_TERMINAL
                  COMMENT "Making ${BUNDLE_FILE}")
