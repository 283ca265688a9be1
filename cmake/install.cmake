include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvlane)

install(TARGETS kvlane EXPORT kvlaneTargets)
set(KVLANE_ADAPTERS "")
foreach(adapter openmp tbb)
  if(TARGET kvlane_${adapter})
    install(TARGETS kvlane_${adapter} EXPORT kvlane_${adapter}Targets)
    install(EXPORT kvlane_${adapter}Targets NAMESPACE kvlane:: DESTINATION ${config_dir})
    list(APPEND KVLANE_ADAPTERS ${adapter})
  endif()
endforeach()
install(EXPORT kvlaneTargets NAMESPACE kvlane:: DESTINATION ${config_dir})
install(DIRECTORY include/kvlane DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

configure_package_config_file(cmake/kvlaneConfig.cmake.in kvlaneConfig.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(kvlaneConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvlaneConfig.cmake ${PROJECT_BINARY_DIR}/kvlaneConfigVersion.cmake DESTINATION ${config_dir})

# A static kvlane needs the C++ library that it was compiled with.
set(KVLANE_PC_PRIVATE_LIBS "-lstdc++ -lm")
configure_file(cmake/kvlane.pc.in kvlane.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvlane.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
