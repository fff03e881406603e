# tests/gpu.sh with stand-ins for a GPU machine's programs, those of the emulation among them.
if(TARGET test_ops_cuda_on_host)
  add_test(NAME gpu_script
           COMMAND ${CMAKE_CURRENT_LIST_DIR}/gpu_script.sh $<TARGET_FILE:test_device_cuda_on_host> $<TARGET_FILE:test_ops_cuda_on_host>)
  set_tests_properties(gpu_script PROPERTIES LABELS unit TIMEOUT 120)
endif()
