# The tests that need a GPU, linked against nothing that a bare GPU machine lacks: no MPI, HDF5 or oneDNN. They hold kernels/
# without its CPU backend. Used by the whole build (suite.cmake) and by the small project beside this file.
set(ROOT ${CMAKE_CURRENT_LIST_DIR}/../..)
set(GPU_TESTS_FOLDER ${CMAKE_CURRENT_LIST_DIR})

file(GLOB GPU_KERNEL_SOURCES CONFIGURE_DEPENDS ${ROOT}/kernels/*.c)
list(FILTER GPU_KERNEL_SOURCES EXCLUDE REGEX "/ops_cpu\\.c$")
add_library(adamem_gpu_kernels STATIC ${GPU_KERNEL_SOURCES} ${ROOT}/io/status.c ${ROOT}/io/log.c ${ROOT}/io/buffer.c
                                      ${GPU_TESTS_FOLDER}/no_cpu_backend.c)
target_include_directories(adamem_gpu_kernels PUBLIC ${ROOT})
target_link_libraries(adamem_gpu_kernels PUBLIC OpenMP::OpenMP_C Threads::Threads m)
adamem_add_cuda(adamem_gpu_kernels)

# cmocka's library is put beside the programs, where they look first: the build folder can be carried to a GPU machine.
function(adamem_gpu_test name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE adamem_gpu_kernels deps::cmocka)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/gpu BUILD_RPATH "$ORIGIN"
                                           LINKER_LANGUAGE C)
endfunction()

adamem_gpu_test(test_device_cuda ${GPU_TESTS_FOLDER}/test_device_cuda.c)
adamem_gpu_test(test_attention_cuda ${GPU_TESTS_FOLDER}/test_attention_cuda.c)
find_library(CMOCKA_LIBRARY_FILE cmocka)
if(CMOCKA_LIBRARY_FILE)
  add_custom_command(TARGET test_device_cuda POST_BUILD
    COMMAND sh -c "cp -L '${CMOCKA_LIBRARY_FILE}' '${CMAKE_BINARY_DIR}/gpu/libcmocka.so.0'" VERBATIM)
endif()

file(GLOB GPU_OP_SOURCES CONFIGURE_DEPENDS ${ROOT}/tests/ops/*.c)
list(FILTER GPU_OP_SOURCES EXCLUDE REGEX "/test_ops\\.c$")
adamem_gpu_test(test_ops_cuda ${GPU_TESTS_FOLDER}/test_ops_cuda.c ${GPU_OP_SOURCES})

# Built with the tests, because it is carried to the GPU machine with them; run by hand.
adamem_gpu_test(bench_attention ${GPU_TESTS_FOLDER}/bench_attention.c)
adamem_gpu_test(bench_lora ${GPU_TESTS_FOLDER}/bench_lora.c)
