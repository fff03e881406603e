# The CUDA kernels proven without a GPU: compiled as C++ against a host emulation of CUDA, and run through the table of op
# tests. Needs a C++ compiler, not the CUDA toolkit; C++ is enabled for these tests only.
include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "no C++ compiler (apt-get install g++): the CUDA kernels are not tested on the host")
  return()
endif()
enable_language(CXX)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
set(ON_HOST ${CMAKE_CURRENT_LIST_DIR})
set(ON_HOST_OPTIONS -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function -fno-exceptions -fno-rtti
                    -fno-threadsafe-statics -fno-semantic-interposition -ftls-model=initial-exec)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND ON_HOST_OPTIONS -fno-extern-tls-init) # shared variables have no constructors
endif()
if(ADAMEM_SANITIZE)
  list(APPEND ON_HOST_OPTIONS -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
endif()

# A library of its own, because its thread-local storage must hold the kernels' shared variables and nothing else. What it
# takes from io/ and kernels/ it finds in the program that loads it.
file(GLOB ON_HOST_KERNELS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/*.cu)
set(ON_HOST_CUDA ${ON_HOST_KERNELS} ${ON_HOST}/self_test.cu)
set_source_files_properties(${ON_HOST_CUDA} PROPERTIES LANGUAGE CXX)
add_library(adamem_cuda_on_host SHARED ${ON_HOST_CUDA} ${PROJECT_SOURCE_DIR}/kernels/cuda/ops_cuda.c ${ON_HOST}/fibre.cpp
                                       ${ON_HOST}/launch.cpp ${ON_HOST}/streams.cpp ${ON_HOST}/memory.cpp
                                       ${ON_HOST}/runtime.cpp ${ON_HOST}/cublaslt.cpp ${ON_HOST}/cudnn.cpp)
set_target_properties(adamem_cuda_on_host PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON)
target_include_directories(adamem_cuda_on_host BEFORE PRIVATE ${ON_HOST}/include)
target_compile_definitions(adamem_cuda_on_host PRIVATE ADAMEM_CUDA_ON_HOST=1 ADAMEM_HAVE_CUDNN=1 ADAMEM_CUDA_ARCHITECTURES="80-emulated")
target_compile_options(adamem_cuda_on_host PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${ON_HOST_OPTIONS}>)

# kernels/ as a program with CUDA has it, with the CPU backend to compare with. Objects, not an archive: a linker looks into
# an archive before it knows what the library behind it lacks.
file(GLOB ON_HOST_BASE CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.c)
add_library(adamem_kernels_on_host OBJECT ${ON_HOST_BASE})
target_compile_definitions(adamem_kernels_on_host PRIVATE ADAMEM_HAVE_CUDA=1)
target_link_libraries(adamem_kernels_on_host PRIVATE deps::dnnl OpenMP::OpenMP_C)
set(ON_HOST_BASE_OBJECTS $<TARGET_OBJECTS:adamem_kernels_on_host>)
foreach(level ${CPU_LEVELS})
  list(APPEND ON_HOST_BASE_OBJECTS $<TARGET_OBJECTS:adamem_cpu_${level}>)
  string(TOUPPER ${level} LEVEL)
  target_compile_definitions(adamem_kernels_on_host PRIVATE ADAMEM_CPU_${LEVEL}=1)
endforeach()

function(adamem_on_host_executable name)
  add_executable(${name} ${ARGN} ${ON_HOST_BASE_OBJECTS})
  target_compile_definitions(${name} PRIVATE ADAMEM_CUDA_ON_HOST=1 ADAMEM_HAVE_CUDA=1)
  target_link_libraries(${name} PRIVATE adamem_cuda_on_host adamem_io deps::dnnl deps::cmocka OpenMP::OpenMP_C m)
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON LINKER_LANGUAGE C)
endfunction()
function(adamem_on_host_test name)
  adamem_on_host_executable(${name} ${ARGN})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT 600)
endfunction()

file(GLOB ON_HOST_OP_TESTS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/ops/*.c)
list(FILTER ON_HOST_OP_TESTS EXCLUDE REGEX "/test_ops\\.c$")
adamem_on_host_test(test_cuda_on_host ${ON_HOST}/test_cuda_on_host.c)
adamem_on_host_test(test_device_cuda_on_host ${PROJECT_SOURCE_DIR}/tests/cuda/test_device_cuda.c)
adamem_on_host_test(test_attention_cuda_on_host ${PROJECT_SOURCE_DIR}/tests/cuda/test_attention_cuda.c)
adamem_on_host_test(test_matmul_plans_cuda_on_host ${ON_HOST}/test_matmul_plans.c)

# The table of ops is the longest test of all: in parts, which run beside each other.
adamem_on_host_executable(test_ops_cuda_on_host ${ON_HOST}/test_ops_cuda_on_host.c ${ON_HOST_OP_TESTS})
set(PARTS 3)
foreach(part RANGE 1 ${PARTS})
  math(EXPR number "${part} - 1")
  add_test(NAME test_ops_cuda_on_host_${part} COMMAND test_ops_cuda_on_host ${number} ${PARTS})
  set_tests_properties(test_ops_cuda_on_host_${part} PROPERTIES LABELS unit TIMEOUT 600)
endforeach()

# The whole program on the emulated device, for tests only: never part of `adamem`. The objects and the emulation come before
# the archives, which then have nothing left to give from kernels/.
function(adamem_on_host_program name)
  add_executable(${name} ${ARGN} ${ON_HOST_BASE_OBJECTS})
  target_compile_definitions(${name} PRIVATE ADAMEM_CUDA_ON_HOST=1 ADAMEM_HAVE_CUDA=1)
  target_link_libraries(${name} PRIVATE adamem_cuda_on_host adamem_trainer deps::dnnl OpenMP::OpenMP_C m)
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON LINKER_LANGUAGE C)
endfunction()
adamem_on_host_program(adamem_on_host ${PROJECT_SOURCE_DIR}/trainer/main.c)

foreach(dtype float32 bfloat16)
  add_test(NAME program_cuda_on_host_${dtype} COMMAND ${ON_HOST}/program.sh $<TARGET_FILE:adamem_on_host> ${dtype})
  set_tests_properties(program_cuda_on_host_${dtype} PROPERTIES LABELS same_bits TIMEOUT 600)
endforeach()

# The row "memory as planned" of tests/gpu.sh.
add_test(NAME memory_cuda_on_host COMMAND ${PROJECT_SOURCE_DIR}/tests/cuda/memory.sh $<TARGET_FILE:adamem_on_host> tiny 64)
set_tests_properties(memory_cuda_on_host PROPERTIES LABELS unit TIMEOUT 300)

# A GPU that is lost on one of two ranks: at once, while weights are loaded, in a step.
foreach(call 1 40 2000)
  add_test(NAME lost_gpu_cuda_on_host_${call}
           COMMAND ${ON_HOST}/lost_gpu.sh $<TARGET_FILE:adamem_on_host> ${call})
  set_tests_properties(lost_gpu_cuda_on_host_${call} PROPERTIES LABELS unit TIMEOUT 120 PROCESSORS 2 SKIP_RETURN_CODE 77)
endforeach()

# The parity tests on the emulated GPU: the same goldens, the same tolerances.
foreach(name parity loss steps invariance rules export)
  set(test test_${name}_cuda_on_host)
  set(PARITY ${PROJECT_SOURCE_DIR}/tests/parity)
  adamem_on_host_program(${test} ${PARITY}/test_${name}.c ${PARITY}/golden.c ${PARITY}/rig.c)
  target_compile_definitions(${test} PRIVATE PARITY_DATA="${PARITY}/data" PARITY_BACKEND="cuda")
  target_link_libraries(${test} PRIVATE deps::cmocka)
  add_test(NAME parity_${name}_cuda_on_host COMMAND ${test})
  set_tests_properties(parity_${name}_cuda_on_host PROPERTIES LABELS parity TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()

# The plan against a real step; one table of matmul plans for a run.
foreach(test plan_step matmul_table)
  set(source ${PROJECT_SOURCE_DIR}/tests/unit/test_${test}.c)
  if(NOT EXISTS ${source})
    set(source ${ON_HOST}/test_${test}.c)
  endif()
  adamem_on_host_program(test_${test}_cuda_on_host ${source})
  target_link_libraries(test_${test}_cuda_on_host PRIVATE deps::cmocka)
  target_compile_definitions(test_${test}_cuda_on_host PRIVATE TEST_DATA="${ADAMEM_TEST_DATA}")
  add_test(NAME test_${test}_cuda_on_host COMMAND test_${test}_cuda_on_host)
  set_tests_properties(test_${test}_cuda_on_host PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT OMP_WAIT_POLICY=passive)
endforeach()

foreach(mode work-late copies-late all-late)
  add_test(NAME test_device_cuda_on_host_${mode} COMMAND test_device_cuda_on_host)
  set_tests_properties(test_device_cuda_on_host_${mode} PROPERTIES LABELS unit TIMEOUT 120
                       ENVIRONMENT "CUDA_ON_HOST_STREAMS=${mode};CUDA_ON_HOST_GUARD=1")
endforeach()

# What the CUDA compiler reports on the kernels: needs its objects and cuobjdump.
if(TARGET adamem_cuda)
  find_program(CUOBJDUMP cuobjdump HINTS ${CUDAToolkit_BIN_DIR})
  string(REGEX REPLACE "([0-9]+a?)-[a-z]+" "sm_\\1" ON_HOST_ARCHITECTURES "${ADAMEM_CUDA_ARCHITECTURES}")
  string(REPLACE ";" " " ON_HOST_ARCHITECTURES "${ON_HOST_ARCHITECTURES}")
  add_test(NAME cuda_no_spills
           COMMAND ${ON_HOST}/no_spills.sh ${CUOBJDUMP} ${ON_HOST_ARCHITECTURES} $<FILTER:$<TARGET_OBJECTS:adamem_cuda>,INCLUDE,\\.cu\\.o$>
           COMMAND_EXPAND_LISTS)
  set_tests_properties(cuda_no_spills PROPERTIES LABELS unit TIMEOUT 120 SKIP_RETURN_CODE 77)
endif()
