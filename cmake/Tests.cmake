# Registers every test with ctest; the labels are unit, abi, header, symbols, arrows, package, check, compile, bindings
# and python.
#
# A cross build has the check and simd tests only, run under CMAKE_CROSSCOMPILING_EMULATOR.

# A test labelled `label`, with at most ten minutes; unit tests, which take seconds, with two: see `sanitize` in the Makefile.
function(dlattn_add_test name label)
    set(limit 600)
    if(label STREQUAL unit)
        set(limit 120)
        if(name MATCHES cuda_common AND DLATTN_SANITIZE) # thousands of schedules, one thread: many minutes with a sanitizer's
            return()                                     # shadow, which sees the same code in the tests of schedules
        endif()
    endif()
    add_test(NAME ${name} COMMAND ${ARGN} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT ${limit})
endfunction()

if(EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
    set(DLATTN_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH "Interpreter of the Python tests")
else()
    find_program(DLATTN_PYTHON python3 REQUIRED DOC "Interpreter of the Python tests")
endif()

# ---- dlattn check, once for each instruction set; 77 says that this machine lacks it ---------------------------------

set(DLATTN_CHECK_ARGUMENTS "" CACHE STRING "Arguments of dlattn check in ctest (empty: the whole case table)")
set(DLATTN_RANDOM_CASES 200 CACHE STRING "Random problems of dlattn check in ctest")
separate_arguments(check_arguments NATIVE_COMMAND "${DLATTN_CHECK_ARGUMENTS}")
foreach(isa ${DLATTN_CPU_ISAS})
    set(check ${PROJECT_SOURCE_DIR}/tests/check_isa.sh ${isa} ${isa_cpuinfo_${isa}} --
              ${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:dlattn_command> check)
    dlattn_add_test(check_${isa} check ${check} ${check_arguments})
    dlattn_add_test(random_${isa} check ${check} --random ${DLATTN_RANDOM_CASES} --seed 2026 --threads 1,3)
    set_tests_properties(check_${isa} random_${isa} PROPERTIES SKIP_RETURN_CODE 77)
endforeach()

# ---- every operation of every vector vocabulary ----------------------------------------------------------------------

add_subdirectory(tests/simd)
if(CMAKE_CROSSCOMPILING)
    return()
endif()

# ---- dlattn check on a GPU, skipped where there is none; and its way of moving memory, with the CPU as the device -----

dlattn_add_test(check_cuda check tests/check_cuda.sh $<TARGET_FILE:dlattn_command> --variant all ${check_arguments})
dlattn_add_test(check_cuda_f16 check tests/check_cuda.sh $<TARGET_FILE:dlattn_command> --dtype f16 ${check_arguments})
dlattn_add_test(check_cuda_bf16 check tests/check_cuda.sh $<TARGET_FILE:dlattn_command> --dtype bf16 ${check_arguments})
dlattn_add_test(repeats_cuda check tests/check_cuda.sh $<TARGET_FILE:dlattn_command> repeats)
dlattn_add_test(random_cuda check tests/check_cuda.sh $<TARGET_FILE:dlattn_command> --random ${DLATTN_RANDOM_CASES} --seed 2026)
set_tests_properties(check_cuda check_cuda_f16 check_cuda_bf16 repeats_cuda random_cuda PROPERTIES SKIP_RETURN_CODE 77)
dlattn_add_test(check_cuda_host check $<TARGET_FILE:dlattn_command> check --device cuda-host --quick --threads 2)

# ---- unit tests: internals, through a static twin of the library ----------------------------------------------------

find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBFFI REQUIRED IMPORTED_TARGET libffi)
if(NOT DLATTN_SANITIZE STREQUAL "thread") # ThreadSanitizer does not bear Criterion's shared memory
    pkg_check_modules(CRITERION IMPORTED_TARGET criterion)
endif()
if(CRITERION_FOUND)
    add_library(dlattn_criterion ALIAS PkgConfig::CRITERION)
else()
    message(STATUS "Unit tests: with the stand-in for Criterion")
    add_library(dlattn_criterion INTERFACE)
    target_include_directories(dlattn_criterion INTERFACE tests/standin)
endif()

add_library(dlattn_internal STATIC ${library_objects})
dlattn_public_includes(dlattn_internal)
target_include_directories(dlattn_internal PUBLIC src src/cpu src/cuda kernels kernels/shared)
target_compile_definitions(dlattn_internal PUBLIC ${DLATTN_CPU_DEFINITIONS})
target_link_libraries(dlattn_internal PUBLIC m pthread ${CMAKE_DL_LIBS})
set_target_properties(dlattn_internal PROPERTIES LINKER_LANGUAGE C)

file(GLOB unit_tests CONFIGURE_DEPENDS tests/unit/*.c)
foreach(source ${unit_tests})
    get_filename_component(name ${source} NAME_WE)
    add_executable(unit_${name} ${source} $<TARGET_OBJECTS:dlattn_harness>)
    target_include_directories(unit_${name} PRIVATE tests)
    target_link_libraries(unit_${name} PRIVATE dlattn_internal dlattn_criterion)
    dlattn_add_test(unit_${name} unit unit_${name})
endforeach()

# ---- every exported function through libffi -------------------------------------------------------------------------

file(GLOB abi_tests CONFIGURE_DEPENDS tests/abi/*.c)
if(abi_tests)
    add_executable(abi_test ${abi_tests})
    target_link_libraries(abi_test PRIVATE dlattn PkgConfig::LIBFFI)
    dlattn_add_test(abi abi abi_test)
endif()

# ---- the source and the product -------------------------------------------------------------------------------------

include(CheckLanguage)
check_language(CXX)
if(NOT CMAKE_CXX_COMPILER)
    message(FATAL_ERROR "the header test needs a C++ compiler")
endif()
set(strict -Wall -Wextra -Werror -pedantic -fsyntax-only -I${PROJECT_SOURCE_DIR}/include)
if(DLATTN_DLPACK_INCLUDE)
    list(APPEND strict -isystem ${DLATTN_DLPACK_INCLUDE})
endif()
dlattn_add_test(header_c11 header ${CMAKE_C_COMPILER} -std=c11 ${strict} tests/header/alone.c)
dlattn_add_test(header_cxx17 header ${CMAKE_CXX_COMPILER} -std=c++17 ${strict} tests/header/alone.cpp)

dlattn_add_test(arrows arrows ${DLATTN_PYTHON} .ci/arrows.py)

if(DLATTN_SANITIZE)
    return() # what follows is about the product, or needs an interpreter that is not instrumented
endif()
include(cmake/CudaTests.cmake)
include(cmake/Emulated.cmake)
dlattn_add_test(symbols symbols tests/symbols/check_symbols.sh $<TARGET_FILE:dlattn> include/dlattn/dlattn.h
                src/dlattn.map)

set(package_prefix ${PROJECT_BINARY_DIR}/package)
dlattn_add_test(package_install package tests/package/install_and_move.sh ${CMAKE_COMMAND} ${PROJECT_BINARY_DIR}
                ${package_prefix})
dlattn_add_test(package_cmake package tests/package/use_cmake.sh ${CMAKE_COMMAND} ${package_prefix})
dlattn_add_test(package_pkgconfig package tests/package/use_pkgconfig.sh ${package_prefix})
set_tests_properties(package_install PROPERTIES FIXTURES_SETUP package)
set_tests_properties(package_cmake package_pkgconfig PROPERTIES FIXTURES_REQUIRED package
                     ENVIRONMENT "CC=${CMAKE_C_COMPILER}")

add_subdirectory(bindings/python/native)
file(GLOB jax_tests CONFIGURE_DEPENDS tests/python/test_jax_*.py) # mostly XLA's compiler at work: a test of their own
dlattn_add_test(pytest python ${DLATTN_PYTHON} -m pytest -q tests/python --ignore-glob=*/test_jax_*)
dlattn_add_test(pytest_jax python ${DLATTN_PYTHON} -m pytest -q ${jax_tests})
dlattn_add_test(pytest_wheel package ${DLATTN_PYTHON} -m pytest -q -m slow tests/python)
set_tests_properties(pytest pytest_jax PROPERTIES ENVIRONMENT
    "DLATTN_LIBRARY=$<TARGET_FILE:dlattn>;DLATTN_COMMAND=$<TARGET_FILE:dlattn_command>;PYTHONPATH=${PROJECT_SOURCE_DIR}/bindings/python/src")

include(cmake/Bindings.cmake)
include(cmake/Bench.cmake)
