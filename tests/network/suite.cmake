# Ranks on two hosts that share nothing but a wire and the file system.
if(ADAMEM_FAULTS)
  add_test(NAME network COMMAND ${CMAKE_CURRENT_LIST_DIR}/network.sh $<TARGET_FILE:adamem_faults>)
  set_tests_properties(network PROPERTIES LABELS faults RUN_SERIAL TRUE TIMEOUT 300 SKIP_RETURN_CODE 77)
  if(ADAMEM_SANITIZE) # slower by design
    set_property(TEST network PROPERTY ENVIRONMENT FAULT_SLOWNESS=6)
  endif()
endif()
