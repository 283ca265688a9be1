# Every rule names its component: runtime, what programs need that are linked with kvlane; development, what compilers and linkers
# need; tools, the command kvlane (tools/kvlane); license.
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvlane)

install(TARGETS kvlane EXPORT kvlaneTargets
  RUNTIME COMPONENT runtime
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE COMPONENT development)
set(KVLANE_ADAPTERS "")
foreach(adapter openmp tbb)
  if(TARGET kvlane_${adapter})
    install(TARGETS kvlane_${adapter} EXPORT kvlane_${adapter}Targets)
    install(EXPORT kvlane_${adapter}Targets NAMESPACE kvlane:: DESTINATION ${config_dir} COMPONENT development)
    list(APPEND KVLANE_ADAPTERS ${adapter})
  endif()
endforeach()
install(EXPORT kvlaneTargets NAMESPACE kvlane:: DESTINATION ${config_dir} COMPONENT development)
install(DIRECTORY include/kvlane DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/kvlane COMPONENT license)

configure_package_config_file(cmake/kvlaneConfig.cmake.in kvlaneConfig.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(kvlaneConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvlaneConfig.cmake ${PROJECT_BINARY_DIR}/kvlaneConfigVersion.cmake DESTINATION ${config_dir}
  COMPONENT development)

# The file finds the installation from where it lies itself, so that this may be moved.
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
foreach(dir libdir includedir)
  string(TOUPPER CMAKE_INSTALL_${dir} installed)
  if(IS_ABSOLUTE ${${installed}})
    set(KVLANE_PC_${dir} ${${installed}})
  else()
    set(KVLANE_PC_${dir} "\${prefix}/${${installed}}")
  endif()
endforeach()
if(IS_ABSOLUTE ${pkgconfig_dir})
  set(KVLANE_PC_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /${pkgconfig_dir} /)
  string(REGEX REPLACE "/$" "" up ${up})
  set(KVLANE_PC_prefix "\${pcfiledir}/${up}")
endif()
list(TRANSFORM KVLANE_CXX_RUNTIME PREPEND -l OUTPUT_VARIABLE KVLANE_PC_private_libs)
list(JOIN KVLANE_PC_private_libs " " KVLANE_PC_private_libs)
configure_file(cmake/kvlane.pc.in kvlane.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kvlane.pc DESTINATION ${pkgconfig_dir} COMPONENT development)
