# The command dlattn: tools, case table and oracle, on top of the shared library's public functions alone.

set(DLATTN_HARNESS_SOURCES
    tests/cases.c
    tests/check.c
    tests/check_bits.c
    tests/check_bound.c
    tests/check_merge.c
    tests/check_visible.c
    tests/device_call.c
    tests/device_driver.c
    tests/device_memory.c
    tests/element.c
    tests/guarded.c
    tests/instance.c
    tests/instance_fill.c
    tests/oracle.c
    tests/oracle_double.c
    tests/oracle_float.c
    tests/oracle_long_double.c
    tests/pairs.c
    tests/random_case.c
)

set(DLATTN_TOOL_SOURCES
    tools/bench.c
    tools/bench_table.c
    tools/check.c
    tools/check_jobs.c
    tools/check_print.c
    tools/demo.c
    tools/demo_check.c
    tools/demo_layers.c
    tools/demo_plain.c
    tools/demo_run.c
    tools/dlattn.c
    tools/explain.c
    tools/info.c
    tools/json.c
    tools/list.c
    tools/options.c
    tools/peak.c
    tools/sweep.c
    tools/sweep_judge.c
    tools/sweep_shapes.c
    tools/timing.c
    tools/timing_cuda.c
    tools/timing_json.c
)

# Case table, oracle and comparison: shared by the command and the unit tests, each of which brings its own dlattn.
add_library(dlattn_harness OBJECT ${DLATTN_HARNESS_SOURCES})
dlattn_public_includes(dlattn_harness)
target_include_directories(dlattn_harness PUBLIC tests)
if(DLATTN_SANITIZE) # most of the time of `dlattn check` goes where the sanitizers need not look
    set(trusted ${DLATTN_HARNESS_SOURCES})
    if(NOT DLATTN_SANITIZE STREQUAL "thread") # the harness has one thread, but many buffers
        list(FILTER trusted INCLUDE REGEX "tests/(oracle.*|element|tensor)\\.c$")
    endif()
    set_source_files_properties(${trusted} PROPERTIES COMPILE_OPTIONS "-O2;-fno-sanitize=all")
endif()

add_executable(dlattn_command ${DLATTN_TOOL_SOURCES} $<TARGET_OBJECTS:dlattn_harness>)
target_include_directories(dlattn_command PRIVATE tests tools)
target_link_libraries(dlattn_command PRIVATE dlattn m pthread ${CMAKE_DL_LIBS})
set_target_properties(dlattn_command PROPERTIES OUTPUT_NAME dlattn RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
    INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
install(TARGETS dlattn_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
