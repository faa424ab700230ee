# What of the CUDA backend can be tested without a GPU but with NVIDIA's own files: our declarations against cuda.h and
# nvrtc.h, and every kernel through NVRTC. Both come from the Python environment (PyPI: nvidia-cuda-runtime, -nvrtc).

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bindings/python/requirements-test.txt)
execute_process(COMMAND ${DLATTN_PYTHON} -c "import importlib.util as u; s = u.find_spec('nvidia'); print(*s.submodule_search_locations, sep='/cu13;', end='/cu13')"
                OUTPUT_VARIABLE wheels ERROR_QUIET)
find_path(DLATTN_CUDA_INCLUDE cuda.h HINTS ${wheels} /usr/local/cuda PATH_SUFFIXES include DOC "Folder of cuda.h")
find_file(DLATTN_NVRTC_LIBRARY NAMES libnvrtc.so.13 libnvrtc.so.12 HINTS ${wheels} /usr/local/cuda
          PATH_SUFFIXES lib lib64 DOC "The NVRTC of the tests")

if(DLATTN_CUDA_INCLUDE)
    dlattn_add_test(cuda_declarations header ${CMAKE_C_COMPILER} -std=gnu11 -Wall -Wextra -Werror -fsyntax-only
                    -Isrc/cuda -isystem ${DLATTN_CUDA_INCLUDE} tests/cuda/declarations.c)
else()
    message(STATUS "CUDA: no cuda.h, our declarations are not compared with it")
endif()

# One process per architecture, so that ctest spreads them; the longest first. What passed is not compiled again.
add_executable(compile_variants tests/cuda/compile_variants.c)
target_link_libraries(compile_variants PRIVATE dlattn_internal)
foreach(arch 80 90 120 100 89 86 75)
    dlattn_add_test(cuda_compile_${arch} compile compile_variants --passed ${PROJECT_BINARY_DIR}/passed_kernels ${arch})
    set_tests_properties(cuda_compile_${arch} PROPERTIES COST 100)
    if(DLATTN_NVRTC_LIBRARY)
        set_tests_properties(cuda_compile_${arch} PROPERTIES ENVIRONMENT "DLATTN_NVRTC=${DLATTN_NVRTC_LIBRARY}")
    endif()
endforeach()

# An archive of compiled kernels, as a build with DLATTN_CUBINS puts one into the library.
set_target_properties(make_cubins PROPERTIES EXCLUDE_FROM_ALL OFF)
dlattn_add_test(cuda_cubins compile make_cubins --file combine.cu ${PROJECT_BINARY_DIR}/cubins_of_combine.bin 75 80 90)
if(DLATTN_NVRTC_LIBRARY)
    set_tests_properties(cuda_cubins PROPERTIES ENVIRONMENT "DLATTN_NVRTC=${DLATTN_NVRTC_LIBRARY}")
endif()

# What the library chooses for the shapes of a sweep, beside what was measured then.
add_executable(sweep_choices bench/sweep_choices.c)
target_link_libraries(sweep_choices PRIVATE dlattn_internal)
dlattn_add_test(sweep_choices unit sweep_choices bench/results/sweep_h100.json)

# Where there is a GPU.
add_executable(host_on_device tests/cuda/host_on_device.c)
target_link_libraries(host_on_device PRIVATE dlattn_internal)
add_executable(bits_on_device tests/cuda/bits_on_device.c tests/device_driver.c tests/element.c)
target_include_directories(bits_on_device PRIVATE tests)
target_link_libraries(bits_on_device PRIVATE dlattn m ${CMAKE_DL_LIBS})
add_executable(host_time bench/host_time.c)
target_link_libraries(host_time PRIVATE dlattn_internal)
if(EXISTS /dev/nvidiactl)
    dlattn_add_test(cuda_host device host_on_device)
    dlattn_add_test(cuda_bits device bits_on_device)
    set_tests_properties(cuda_bits PROPERTIES SKIP_RETURN_CODE 77)
endif()
