# The compiler options of all targets, and those of the library alone.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # gnu11: ISO mode would turn contraction off silently and hide POSIX
set(CMAKE_C_FLAGS_RELEASE "-O3") # without NDEBUG, which the library alone gets: the assertions of tests must hold

# No a*b+c may become an fma unless the source says so: results must not depend on the compiler's taste.
add_compile_options(-ffp-contract=off -Wall -Wextra)
if(DLATTN_WERROR)
    add_compile_options(-Werror)
endif()

if(DLATTN_SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=address,undefined)
elseif(DLATTN_SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer -g)
    add_link_options(-fsanitize=thread)
elseif(DLATTN_SANITIZE)
    message(FATAL_ERROR "DLATTN_SANITIZE is '${DLATTN_SANITIZE}', expected address or thread")
endif()

# What a program needs to include <dlattn/dlattn.h>, from the source tree and once installed.
function(dlattn_public_includes target)
    target_include_directories(${target} PUBLIC
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
    if(DLATTN_DLPACK_INCLUDE)
        target_include_directories(${target} SYSTEM PUBLIC $<BUILD_INTERFACE:${DLATTN_DLPACK_INCLUDE}>)
    endif()
endfunction()

function(dlattn_library_options target)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
    target_compile_definitions(${target} PRIVATE $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:NDEBUG>)
    target_include_directories(${target} PRIVATE src src/cpu src/cuda kernels kernels/shared)
    dlattn_public_includes(${target})
endfunction()
