# cuDNN's plans for our attention graphs, made by cuDNN without a GPU. Needs its header and CUDA's; the library is looked for
# when the test runs.
if(TARGET deps::cudnn)
  set(CUDNN_TEST ${CMAKE_CURRENT_LIST_DIR})
  set(CUDNN_SOURCES ${PROJECT_SOURCE_DIR}/kernels/cuda)
  add_library(cuda_driver_stand_in MODULE ${CUDNN_TEST}/cuda_driver_stand_in.c)
  set_target_properties(cuda_driver_stand_in PROPERTIES PREFIX "" OUTPUT_NAME libcuda_driver_stand_in NO_SONAME ON)
  target_link_options(cuda_driver_stand_in PRIVATE -Wl,-soname,libcuda.so.1)

  add_executable(test_cudnn_plans ${CUDNN_TEST}/test_cudnn_plans.c ${CUDNN_SOURCES}/cudnn_library.c ${CUDNN_SOURCES}/cudnn_graph.c
                                  ${CUDNN_SOURCES}/cudnn_attention.c)
  target_compile_definitions(test_cudnn_plans PRIVATE CUDA_DRIVER_STAND_IN="$<TARGET_FILE:cuda_driver_stand_in>")
  target_link_libraries(test_cudnn_plans PRIVATE deps::cudnn adamem_io deps::cmocka m)
  if(CUDNN_LIBRARY)
    get_filename_component(CUDNN_FOLDER ${CUDNN_LIBRARY} DIRECTORY)
    set_target_properties(test_cudnn_plans PROPERTIES BUILD_RPATH ${CUDNN_FOLDER})
  endif()
  add_dependencies(test_cudnn_plans cuda_driver_stand_in)
  add_test(NAME cudnn_plans COMMAND test_cudnn_plans)
  set_tests_properties(cudnn_plans PROPERTIES LABELS unit TIMEOUT 300)
endif()
