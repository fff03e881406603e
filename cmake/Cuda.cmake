# The CUDA backend: kernels/cuda/ as one object library that becomes part of adamem_kernels. CUDA C++ stays inside its .cu
# files: they export C functions, use neither exceptions nor run-time type information, and so need no C++ library.
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
endif()
# The architectures are a target property below; without a value here the language check would build for its own default.
set(CMAKE_CUDA_ARCHITECTURES ${ADAMEM_CUDA_ARCHITECTURES})
enable_language(CUDA)
if(CUDAToolkit_VERSION VERSION_LESS 13.0)
  message(FATAL_ERROR "CUDA ${CUDAToolkit_VERSION} is too old: 13.0 or later is needed (or configure with -DADAMEM_CUDA=OFF)")
endif()

set(CUDA_FOLDER ${CMAKE_CURRENT_LIST_DIR}/../kernels/cuda)
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS ${CUDA_FOLDER}/*.cu ${CUDA_FOLDER}/*.c)

# cuDNN is loaded at run time; only its header is needed here, and attention does without where there is none.
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDNN_INCLUDE_DIR}/../lib)
set(CUDNN_GRAPH_VERSION 0)
if(CUDNN_INCLUDE_DIR)
  file(GLOB CUDNN_HEADERS ${CUDNN_INCLUDE_DIR}/cudnn_graph*.h)
  foreach(header ${CUDNN_HEADERS})
    file(STRINGS ${header} CUDNN_LINES REGEX "#define CUDNN_GRAPH_(MAJOR|MINOR) ")
    if("${CUDNN_LINES}" MATCHES "MAJOR ([0-9]+).*MINOR ([0-9]+)")
      set(CUDNN_GRAPH_VERSION ${CMAKE_MATCH_1}.${CMAKE_MATCH_2})
    endif()
  endforeach()
endif()
if(CUDNN_GRAPH_VERSION VERSION_LESS 9.8) # the first that describes GPUs by descriptors
  message(STATUS "cudnn_graph.h of cuDNN 9.8 or later not found: attention runs on our own kernels")
  list(FILTER CUDA_SOURCES EXCLUDE REGEX "/cudnn_[a-z]+\\.c$")
else()
  add_library(deps_cudnn INTERFACE)
  target_include_directories(deps_cudnn SYSTEM INTERFACE ${CUDNN_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(deps_cudnn INTERFACE ADAMEM_HAVE_CUDNN=1)
  target_link_libraries(deps_cudnn INTERFACE ${CMAKE_DL_LIBS})
  add_library(deps::cudnn ALIAS deps_cudnn)
endif()

add_library(adamem_cuda OBJECT ${CUDA_SOURCES})
if(TARGET deps::cudnn)
  target_link_libraries(adamem_cuda PRIVATE deps::cudnn)
endif()
set_target_properties(adamem_cuda PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static)
target_include_directories(adamem_cuda SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
string(REPLACE ";" ", " ARCHITECTURES_TEXT "${ADAMEM_CUDA_ARCHITECTURES}")
target_compile_definitions(adamem_cuda PUBLIC ADAMEM_HAVE_CUDA=1 PRIVATE ADAMEM_CUDA_ARCHITECTURES="${ARCHITECTURES_TEXT}")
# -lineinfo lets compute-sanitizer and the profiler name source lines; it triples the size of the machine code.
target_compile_options(adamem_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Wno-deprecated-gpu-targets;--threads=2;-Xcompiler=-Wall,-Wextra,-Werror,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<NOT:$<CONFIG:Release>>>:-lineinfo>)


# adamem_add_cuda(TARGET): the target holds the CUDA backend, and what links it links CUDA's libraries.
function(adamem_add_cuda target)
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES "${ADAMEM_CUDA_ARCHITECTURES}")
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:adamem_cuda>)
  target_compile_definitions(${target} PUBLIC ADAMEM_HAVE_CUDA=1)
  target_link_libraries(${target} PUBLIC CUDA::cudart_static CUDA::cublasLt ${CMAKE_DL_LIBS})
endfunction()
if(TARGET adamem_kernels)
  adamem_add_cuda(adamem_kernels)
endif()
