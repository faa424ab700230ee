# The CUDA backend on a machine without a GPU: a libcuda and a libnvrtc of our own that run the kernels on the CPU, and
# dlattn check on them. The folder is put before the loader's own path, so a real driver is not touched.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    return() # the switch between fibers is in its assembler
endif()

set(emulated ${PROJECT_BINARY_DIR}/emulated)
set(emulated_source ${PROJECT_SOURCE_DIR}/tests/emulated)
file(GLOB emulated_files CONFIGURE_DEPENDS LIST_DIRECTORIES false ${emulated_source}/*)
set(emulated_compile ${CMAKE_CXX_COMPILER} -std=c++17 -O2 -Wall -Wextra -Werror -fPIC -shared)
add_custom_command(
    OUTPUT ${emulated}/libcuda.so.1 ${emulated}/libnvrtc.so.13
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${emulated} # its compiled kernels too: they hold device.h
    COMMAND ${CMAKE_COMMAND} -E make_directory ${emulated}
    COMMAND ${emulated_compile} -Wl,-soname,libcuda.so.1 ${emulated_source}/cuda.cpp -o ${emulated}/libcuda.so.1
            -ldl
    COMMAND ${emulated_compile} "-DEMULATED_COMPILER=\"${CMAKE_CXX_COMPILER}\"" "-DEMULATED_PYTHON=\"${DLATTN_PYTHON}\""
            "-DEMULATED_FOLDER=\"${emulated_source}\"" ${emulated_source}/nvrtc.cpp -o ${emulated}/libnvrtc.so.13
    DEPENDS ${emulated_files} VERBATIM)
add_custom_target(emulated_cuda ALL DEPENDS ${emulated}/libcuda.so.1 ${emulated}/libnvrtc.so.13)

# A few cases that reach most kernels; all of them take half an hour: see CONTRIBUTING.md.
dlattn_add_test(check_emulated check tests/emulated/run.sh ${PROJECT_BINARY_DIR} $<TARGET_FILE:dlattn_command> check
                --device cuda --brief --jobs 1 plain plain_f16 no_heads_with_bias_f16 gpu_segments gpu_packed gpu_everything
                paged_size_16 paged_decode_misaligned_f16)
set_tests_properties(check_emulated PROPERTIES COST 90)

# Hopper's forward, with so few multiprocessors that its blocks have several tiles.
dlattn_add_test(check_emulated_sm90 check tests/emulated/run.sh ${PROJECT_BINARY_DIR} $<TARGET_FILE:dlattn_command> check
                --device cuda --variant sm90 --brief --jobs 1 head_sizes_f16_128_128 gpu_large_causal_d64 gpu_window_across_tiles_bf16
                gpu_packed_bf16 gpu_lengths_bf16 softcap_bf16 block_window_causal_bf16 gpu_permuted_f16)
set_tests_properties(check_emulated_sm90 PROPERTIES COST 60 ENVIRONMENT EMULATED_MULTIPROCESSORS=3)

# The same bits in a second call, by every kind of schedule.
dlattn_add_test(bits_emulated check tests/emulated/run.sh ${PROJECT_BINARY_DIR} $<TARGET_FILE:bits_on_device> 2 40)
set_tests_properties(bits_emulated PROPERTIES COST 20 ENVIRONMENT EMULATED_MULTIPROCESSORS=3)

# Python's calls, with a stand-in for CuPy.
dlattn_add_test(python_emulated python tests/emulated/run.sh ${PROJECT_BINARY_DIR} ${DLATTN_PYTHON} -m pytest -q -p no:cacheprovider
                tests/emulated/python)
set_tests_properties(python_emulated PROPERTIES COST 20 ENVIRONMENT "DLATTN_LIBRARY=$<TARGET_FILE:dlattn>;PYTHONPATH=${PROJECT_SOURCE_DIR}/\
bindings/python/src:${PROJECT_SOURCE_DIR}/tests/python:${PROJECT_SOURCE_DIR}/tests/emulated/python")
