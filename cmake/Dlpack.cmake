# Finds dlpack/dlpack.h, 1.0 or later. Sets DLATTN_DLPACK_INCLUDE (empty: the compiler finds it by itself).
#
# In this order: -DDLATTN_DLPACK_INCLUDE_DIR, the compiler's own path, the Python environment (PyPI: apache-tvm-ffi),
# a download of the upstream release.
include(CheckCSourceCompiles)

set(DLATTN_DLPACK_INCLUDE_DIR "" CACHE PATH "Folder that holds dlpack/dlpack.h, 1.0 or later")

function(dlattn__try_dlpack result folder)
    string(MAKE_C_IDENTIFIER "DLATTN_DLPACK_WORKS_IN_${folder}" key)
    set(CMAKE_REQUIRED_INCLUDES ${folder})
    set(CMAKE_REQUIRED_QUIET ON)
    check_c_source_compiles("
        #include <dlpack/dlpack.h>
        #if DLPACK_MAJOR_VERSION < 1
        #error too old
        #endif
        int main(void) { return (int)sizeof(DLManagedTensorVersioned) == 0; }" ${key})
    set(${result} ${${key}} PARENT_SCOPE)
endfunction()

# The include folder of an interpreter's apache-tvm-ffi, without importing it.
function(dlattn__python_dlpack result python)
    execute_process(COMMAND ${python} -c
        "import importlib.util as u, os; print(os.path.join(u.find_spec('tvm_ffi').submodule_search_locations[0], 'include'))"
        OUTPUT_VARIABLE folder ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    set(${result} "${folder}" PARENT_SCOPE)
endfunction()

function(dlattn__find_dlpack result origin)
    if(DLATTN_DLPACK_INCLUDE_DIR)
        dlattn__try_dlpack(works "${DLATTN_DLPACK_INCLUDE_DIR}")
        if(NOT works)
            message(FATAL_ERROR "DLATTN_DLPACK_INCLUDE_DIR=${DLATTN_DLPACK_INCLUDE_DIR} holds no dlpack/dlpack.h of "
                                "version 1.0 or later")
        endif()
        set(${result} "${DLATTN_DLPACK_INCLUDE_DIR}" PARENT_SCOPE)
        set(${origin} "DLATTN_DLPACK_INCLUDE_DIR" PARENT_SCOPE)
        return()
    endif()
    if(DLATTN_SYSTEM_HAS_DLPACK)
        set(${result} "" PARENT_SCOPE)
        set(${origin} "the compiler's path" PARENT_SCOPE)
        return()
    endif()
    foreach(python ${Python_EXECUTABLE} ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/.venv/bin/python)
        dlattn__python_dlpack(folder ${python})
        if(folder)
            dlattn__try_dlpack(works "${folder}")
            if(works)
                set(${result} "${folder}" PARENT_SCOPE)
                set(${origin} "apache-tvm-ffi in the Python environment" PARENT_SCOPE)
                return()
            endif()
        endif()
    endforeach()

    include(FetchContent)
    FetchContent_Declare(dlpack GIT_REPOSITORY https://github.com/dmlc/dlpack.git GIT_TAG v1.1 GIT_SHALLOW ON
                         SOURCE_SUBDIR headers-only) # no such folder: nothing of its own build is wanted
    FetchContent_MakeAvailable(dlpack)
    dlattn__try_dlpack(works "${dlpack_SOURCE_DIR}/include")
    if(NOT works)
        message(FATAL_ERROR "no dlpack/dlpack.h of version 1.0 or later: set DLATTN_DLPACK_INCLUDE_DIR")
    endif()
    set(${result} "${dlpack_SOURCE_DIR}/include" PARENT_SCOPE)
    set(${origin} "the upstream release" PARENT_SCOPE)
endfunction()

# Programs that use the installed library need the header too; it is installed with us unless the system has it.
dlattn__try_dlpack(DLATTN_SYSTEM_HAS_DLPACK "")
dlattn__find_dlpack(DLATTN_DLPACK_INCLUDE dlpack_origin)
message(STATUS "dlpack.h: from ${dlpack_origin}")
