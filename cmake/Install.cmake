# Installs the library, its headers, the CMake package and the pkg-config file; all of it may be moved afterwards.
include(CMakePackageConfigHelpers)

install(TARGETS dlattn EXPORT dlattn-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/dlattn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
if(NOT DLATTN_SYSTEM_HAS_DLPACK)
    install(FILES ${DLATTN_DLPACK_INCLUDE}/dlpack/dlpack.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/dlpack
            COMPONENT development)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/dlattn)
install(EXPORT dlattn-targets NAMESPACE dlattn:: DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(cmake/dlattnConfig.cmake.in ${PROJECT_BINARY_DIR}/dlattnConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dlattnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dlattnConfig.cmake ${PROJECT_BINARY_DIR}/dlattnConfigVersion.cmake
        DESTINATION ${package_dir} COMPONENT development)

# The path from the .pc file to the prefix, so that the prefix may be moved.
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH DLATTN_PC_TO_PREFIX /p/${pc_dir} /p)
string(REGEX REPLACE "/$" "" DLATTN_PC_TO_PREFIX "${DLATTN_PC_TO_PREFIX}")
configure_file(cmake/dlattn.pc.in ${PROJECT_BINARY_DIR}/dlattn.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dlattn.pc DESTINATION ${pc_dir} COMPONENT development)
