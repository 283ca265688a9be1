# Debian packages: one for each component of the installation but the license, in whose place each has a copyright file. The prefix
# of the build is /usr, for which Debian's directory of libraries is the architecture's.

set(CPACK_GENERATOR DEB)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT) # libkvlane0_0.3.0_amd64.deb
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/documents.cmake)
set(CPACK_POST_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/no_scripts.cmake)

set(maintainer "The kvlane authors <authors@kvlane.invalid>")
if(DEFINED ENV{DEBFULLNAME} AND DEFINED ENV{DEBEMAIL})
  set(maintainer "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
endif()
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "${maintainer}" CACHE STRING "Name and address of whoever distributes the packages")
set(CPACK_DEBIAN_PACKAGE_SOURCE kvlane)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # a description's first line is its package's
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON) # packages need those of their components' dependencies, of the same version

set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libkvlane${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/triggers)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=") # minor versions only add to the ABI
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION
"decode-time attention on CPUs - shared library
KV cache and attention for the runtimes of large language models, with kernels
for every instruction set of the processor family.
This package contains the shared library.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libkvlane-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS libtbb-dev) # of kvlane/tbb.hpp
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
"decode-time attention on CPUs - development files
KV cache and attention for the runtimes of large language models.
This package contains the headers of the C and C++ interfaces, the CMake
package and the pkg-config file.")

# The command kvlane, where it is built.
get_cmake_property(components COMPONENTS)
if(tools IN_LIST components)
  list(APPEND CPACK_COMPONENTS_ALL tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME kvlane-tools)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION utils)
  set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}) # where the library is
  set(CPACK_COMPONENT_TOOLS_DEPENDS runtime)
  set(CPACK_COMPONENT_TOOLS_DESCRIPTION
"decode-time attention on CPUs - command
KV cache and attention for the runtimes of large language models.
This package contains the command kvlane.")
endif()

include(CPack)
