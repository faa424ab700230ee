# The CUDA kernels travel in the library as text: where they are, and that a change of one is a change of the library.

set(DLATTN_KERNELS_FOLDER ${PROJECT_SOURCE_DIR}/kernels)
file(GLOB_RECURSE DLATTN_KERNEL_FILES CONFIGURE_DEPENDS
     ${DLATTN_KERNELS_FOLDER}/*.cu ${DLATTN_KERNELS_FOLDER}/*.cuh ${DLATTN_KERNELS_FOLDER}/*.h)

# `source` embeds the files that src/cuda/source_files.h names.
function(dlattn_embed_cuda_kernels source)
    set_source_files_properties(${source} PROPERTIES
        COMPILE_DEFINITIONS "DLATTN_KERNELS_FOLDER=\"${DLATTN_KERNELS_FOLDER}\"" OBJECT_DEPENDS "${DLATTN_KERNEL_FILES}")
endfunction()
