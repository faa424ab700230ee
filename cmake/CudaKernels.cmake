# The CUDA kernels travel in the library as text: where they are, and that a change of one is a change of the library.
# With DLATTN_CUBINS some also travel compiled.

set(DLATTN_CUBINS "" CACHE STRING
    "Architectures (80;90 ...) whose kernels the library carries compiled; needs NVRTC (DLATTN_NVRTC tells where)")

set(DLATTN_KERNELS_FOLDER ${PROJECT_SOURCE_DIR}/kernels)
file(GLOB_RECURSE DLATTN_KERNEL_FILES CONFIGURE_DEPENDS
     ${DLATTN_KERNELS_FOLDER}/*.cu ${DLATTN_KERNELS_FOLDER}/*.cuh ${DLATTN_KERNELS_FOLDER}/*.h)

# `source` embeds the files that src/cuda/source_files.h names.
function(dlattn_embed_cuda_kernels source)
    set_source_files_properties(${source} PROPERTIES
        COMPILE_DEFINITIONS "DLATTN_KERNELS_FOLDER=\"${DLATTN_KERNELS_FOLDER}\"" OBJECT_DEPENDS "${DLATTN_KERNEL_FILES}")
endfunction()

# The objects of embedded.c, with the archive that make_cubins writes or without one. `objects`: the rest of the library,
# of which make_cubins is made too.
function(dlattn_embedded_cubins result objects)
    add_library(dlattn_embedded OBJECT src/cuda/embedded.c)
    dlattn_library_options(dlattn_embedded)
    add_executable(make_cubins EXCLUDE_FROM_ALL src/cuda/embed/make_cubins.c ${objects} $<TARGET_OBJECTS:dlattn_embedded>)
    target_include_directories(make_cubins PRIVATE src src/cuda kernels kernels/shared)
    dlattn_public_includes(make_cubins)
    target_link_libraries(make_cubins PRIVATE m pthread ${CMAKE_DL_LIBS})
    if(NOT DLATTN_CUBINS)
        set(${result} $<TARGET_OBJECTS:dlattn_embedded> PARENT_SCOPE)
        return()
    endif()

    set(archive ${PROJECT_BINARY_DIR}/cubins.bin)
    add_custom_command(OUTPUT ${archive} COMMAND make_cubins ${archive} ${DLATTN_CUBINS} DEPENDS make_cubins VERBATIM
                       COMMENT "Compiling CUDA kernels for ${DLATTN_CUBINS}")
    set(source ${PROJECT_BINARY_DIR}/embedded_cubins.c) # another name, so that it alone depends on the archive
    file(CONFIGURE OUTPUT ${source} CONTENT "#include \"${PROJECT_SOURCE_DIR}/src/cuda/embedded.c\"\n")
    set_source_files_properties(${source} PROPERTIES
        COMPILE_DEFINITIONS "DLATTN_CUBINS_FILE=\"${archive}\"" OBJECT_DEPENDS "${archive}")
    add_library(dlattn_embedded_cubins OBJECT ${source})
    dlattn_library_options(dlattn_embedded_cubins)
    set(${result} $<TARGET_OBJECTS:dlattn_embedded_cubins> PARENT_SCOPE)
endfunction()
