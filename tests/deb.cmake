# Makes the Debian packages, of a library for the isa scalar alone, and installs them in an empty root: builds consumer/ with both
# packages, and runs it with the runtime package alone. The dependencies are this machine's.

cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/consumer.cmake)

string(REGEX MATCH "^[0-9]+" major "${VERSION}")
set(runtime libkvlane${major})
set(development libkvlane-dev)
set(root ${WORK_DIR}/root)

# Sets <variable> to what a command prints.
function(ask variable)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(${variable} "${answer}" PARENT_SCOPE)
endfunction()

# Fails unless dpkg, run on the root, ends with this status.
function(expect_dpkg expected)
  execute_process(COMMAND dpkg --root=${root} --force-not-root,script-chrootless ${ARGN} COMMAND_ECHO STDOUT RESULT_VARIABLE status)
  if(NOT status EQUAL expected)
    message(FATAL_ERROR "dpkg ${ARGN}: status ${status}; expected ${expected}")
  endif()
endfunction()

# Fails unless the package has these control files.
function(expect_control package)
  file(REMOVE_RECURSE ${WORK_DIR}/control)
  run(dpkg-deb --control ${package} ${WORK_DIR}/control)
  file(GLOB files RELATIVE ${WORK_DIR}/control ${WORK_DIR}/control/*)
  if(NOT files STREQUAL "${ARGN}")
    message(FATAL_ERROR "${package} has the control files ${files}; expected ${ARGN}")
  endif()
endfunction()

# Makes the root's list of packages: those of this machine that the runtime package needs.
function(make_root package)
  ask(dependencies dpkg-deb --field ${package} Depends)
  if(NOT dependencies MATCHES "libc6 .*libstdc\\+\\+6")
    message(FATAL_ERROR "${package} does not need the C and C++ libraries, but \"${dependencies}\"")
  endif()
  string(REGEX REPLACE " \\([^)]*\\)|," "" names "${dependencies}")
  separate_arguments(names)
  ask(status dpkg-query --status ${names})
  file(MAKE_DIRECTORY ${root}/var/lib/dpkg/info ${root}/var/lib/dpkg/updates)
  file(WRITE ${root}/var/lib/dpkg/status "${status}\n")
endfunction()

file(REMOVE_RECURSE ${root} ${WORK_DIR}/packages)
build_library(${WORK_DIR}/build -DCMAKE_INSTALL_PREFIX=/usr -DBUILD_SHARED_LIBS=ON)
run(cpack --config ${WORK_DIR}/build/CPackConfig.cmake -B ${WORK_DIR}/packages)
ask(architecture dpkg --print-architecture)
set(runtime_package ${WORK_DIR}/packages/${runtime}_${VERSION}_${architecture}.deb)
set(development_package ${WORK_DIR}/packages/${development}_${VERSION}_${architecture}.deb)
expect_control(${runtime_package} control md5sums shlibs triggers)
expect_control(${development_package} control md5sums)
find_program(LINTIAN lintian)
if(LINTIAN)
  run(${LINTIAN} --allow-root --fail-on error,warning ${runtime_package} ${development_package})
endif()

# The development package needs the runtime package.
make_root(${runtime_package})
expect_dpkg(1 --install ${development_package})
expect_dpkg(0 --install ${runtime_package} ${development_package})
expect_dpkg(1 --remove ${runtime})
ask(multiarch dpkg-architecture --query DEB_HOST_MULTIARCH)
set(libdir ${root}/usr/lib/${multiarch})

set(programs consumer_c consumer_bits consumer_cpp)
set(ENV{LD_LIBRARY_PATH} ${libdir})
file(REMOVE_RECURSE ${WORK_DIR}/find_package ${WORK_DIR}/pkg_config)
build_consumer(${WORK_DIR}/find_package -DCMAKE_PREFIX_PATH=${root}/usr -DVERSION=${VERSION})
set(directories ${WORK_DIR}/find_package)
if(PKG_CONFIG)
  ask_pkg_config(cflags ${libdir} --cflags)
  ask_pkg_config(libs ${libdir} --libs)
  compile_consumer(${WORK_DIR}/pkg_config "${cflags}" "${libs}")
  list(APPEND directories ${WORK_DIR}/pkg_config)
endif()

expect_dpkg(0 --remove ${development})
if(EXISTS ${root}/usr/include OR EXISTS ${libdir}/libkvlane.so)
  message(FATAL_ERROR "${development} is removed, but left files in ${root}/usr")
endif()
foreach(directory IN LISTS directories)
  run_programs(${directory} ${programs})
endforeach()

# The programs have run with the package's library, and with no other.
expect_dpkg(0 --remove ${runtime})
foreach(directory IN LISTS directories)
  execute_process(COMMAND ${directory}/consumer_c RESULT_VARIABLE status ERROR_VARIABLE text)
  if(status EQUAL 0 OR NOT text MATCHES "libkvlane.so.${major}")
    message(FATAL_ERROR "${directory}/consumer_c runs without ${runtime}: status ${status}, ${text}")
  endif()
endforeach()
