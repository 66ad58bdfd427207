# `cmake --install`: libraries, headers, the CMake package and the pkg-config file.
include(CMakePackageConfigHelpers)

set(DAGSTORE_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/dagstore)
install(EXPORT dagstore NAMESPACE dagstore:: FILE dagstore-targets.cmake DESTINATION ${DAGSTORE_CMAKE_DIR})
configure_package_config_file(cmake/dagstore-config.cmake.in ${PROJECT_BINARY_DIR}/dagstore-config.cmake
  INSTALL_DESTINATION ${DAGSTORE_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/dagstore-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/dagstore-config.cmake ${PROJECT_BINARY_DIR}/dagstore-config-version.cmake
  DESTINATION ${DAGSTORE_CMAKE_DIR})

configure_file(cmake/dagstore.pc.in ${PROJECT_BINARY_DIR}/dagstore.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/dagstore.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE-APACHE LICENSE-MIT README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
