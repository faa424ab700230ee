# What bench/languages.py runs: C's runner and a provider that is not dlattn; and a quick run of every language as a test.

add_executable(bench_run bench/run.c bench/provider.c tools/bench_table.c tools/json.c tools/peak.c tools/timing.c
               tools/timing_cuda.c tools/timing_json.c $<TARGET_OBJECTS:dlattn_harness>)
target_include_directories(bench_run PRIVATE tests tools)
target_link_libraries(bench_run PRIVATE dlattn PkgConfig::LIBFFI m pthread ${CMAKE_DL_LIBS})

find_package(BLAS QUIET)
if(BLAS_FOUND)
    add_library(bench_blas MODULE bench/providers/blas_formula.c)
    dlattn_public_includes(bench_blas)
    target_link_libraries(bench_blas PRIVATE BLAS::BLAS m)
    set_target_properties(bench_blas PROPERTIES PREFIX "" OUTPUT_NAME blas LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/providers)
else()
    message(STATUS "No BLAS: the bench's sample provider is not built (Debian: libopenblas-dev or libblas-dev)")
endif()

dlattn_add_test(bench_languages bindings ${DLATTN_PYTHON} -m pytest -q -p no:cacheprovider tests/bench)
set_tests_properties(bench_languages PROPERTIES ENVIRONMENT "DLATTN_BUILD=${PROJECT_BINARY_DIR}" COST 60)
