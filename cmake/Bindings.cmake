# Registers the tests of the packages for other languages; a language that is not installed is a skip, which `make test`
# prints and .ci/run takes as a failure. Each also runs its examples: the first must print what C's prints.

set(dlpack_include ${DLATTN_DLPACK_INCLUDE})
if(NOT dlpack_include) # the compiler finds it by itself
    find_path(DLATTN_SYSTEM_DLPACK dlpack/dlpack.h REQUIRED)
    set(dlpack_include ${DLATTN_SYSTEM_DLPACK})
endif()

add_executable(example_attention examples/c/attention.c)
target_link_libraries(example_attention PRIVATE dlattn)
set_target_properties(example_attention PROPERTIES C_STANDARD 11)

set(with_device "")
if(TARGET emulated_cuda)
    set(with_device ${PROJECT_BINARY_DIR})
endif()
dlattn_add_test(rust bindings tests/bindings/rust.sh $<TARGET_FILE_DIR:dlattn> ${PROJECT_BINARY_DIR}/rust
                $<TARGET_FILE:example_attention> ${with_device})
dlattn_add_test(julia bindings tests/bindings/julia.sh $<TARGET_FILE:dlattn> ${PROJECT_BINARY_DIR}/julia
                $<TARGET_FILE:example_attention> ${with_device})
dlattn_add_test(rust_packed bindings tests/bindings/rust_packed.sh ${PROJECT_BINARY_DIR}/rust_packed ${dlpack_include})
set_tests_properties(rust_packed julia rust PROPERTIES SKIP_RETURN_CODE 77)

dlattn_add_test(readme_c bindings tests/bindings/readme_c.sh ${CMAKE_C_COMPILER} $<TARGET_FILE:dlattn> ${PROJECT_BINARY_DIR}/readme
                -I${PROJECT_SOURCE_DIR}/include -I${dlpack_include})
dlattn_add_test(python_example bindings tests/bindings/python_example.sh ${DLATTN_PYTHON} $<TARGET_FILE:example_attention>)
set_tests_properties(python_example PROPERTIES ENVIRONMENT
    "DLATTN_LIBRARY=$<TARGET_FILE:dlattn>;PYTHONPATH=${PROJECT_SOURCE_DIR}/bindings/python/src")
