# Uses the package as its users do: builds consumer/ with it, and runs what was built.
#   cmake -DUSE=install | find_package | pkg_config | add_subdirectory … -P package.cmake

set(prefix ${WORK_DIR}/prefix)
set(programs ${WORK_DIR}/${USE}/consumer_c ${WORK_DIR}/${USE}/consumer_cpp)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(build_consumer)
  run(${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${WORK_DIR}/${USE} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
    -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_C_FLAGS=${C_FLAGS} -DCMAKE_CXX_FLAGS=${CXX_FLAGS}
    -DCMAKE_EXE_LINKER_FLAGS=${LINKER_FLAGS} ${ARGN})
  run(${CMAKE_COMMAND} --build ${WORK_DIR}/${USE} --config ${BUILD_TYPE} --parallel)
endfunction()

# Sets <variable> to what pkg-config answers. The prefix that a file names is the one that was configured, not the one of
# this installation.
function(ask_pkg_config variable)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${prefix}/${LIBDIR}/pkgconfig
    ${PKG_CONFIG} --define-variable=prefix=${prefix} ${ARGN} kvlane
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(answer UNIX_COMMAND "${answer}")
  set(${variable} ${answer} PARENT_SCOPE)
endfunction()

if(USE STREQUAL "install")
  file(REMOVE_RECURSE ${WORK_DIR})
  run(${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${prefix} --config ${BUILD_TYPE})
  return()
elseif(USE STREQUAL "find_package")
  build_consumer(-DCMAKE_PREFIX_PATH=${prefix} -DVERSION=${VERSION} "-DCOMPONENTS=${COMPONENTS}")
elseif(USE STREQUAL "add_subdirectory")
  build_consumer(-DKVLANE_DIRECTORY=${SOURCE_DIR} -DKVLANE_XSIMD_INCLUDE_DIR=${XSIMD_INCLUDE_DIR})
elseif(USE STREQUAL "pkg_config")
  if(NOT PKG_CONFIG)
    message("skipped: pkg-config is missing")
    return()
  endif()
  ask_pkg_config(cflags --cflags)
  ask_pkg_config(libs --libs ${STATIC})
  separate_arguments(c_flags UNIX_COMMAND "${C_FLAGS}")
  separate_arguments(cxx_flags UNIX_COMMAND "${CXX_FLAGS}")
  separate_arguments(linker_flags UNIX_COMMAND "${LINKER_FLAGS}")
  list(APPEND linker_flags ${libs} -Wl,-rpath,${prefix}/${LIBDIR})
  file(MAKE_DIRECTORY ${WORK_DIR}/${USE})
  run(${CC} ${c_flags} ${cflags} ${CONSUMER_DIR}/main.c -o ${WORK_DIR}/${USE}/consumer_c ${linker_flags})
  run(${CXX} ${cxx_flags} -std=c++20 ${cflags} ${CONSUMER_DIR}/main.cpp -o ${WORK_DIR}/${USE}/consumer_cpp ${linker_flags})
endif()

foreach(program IN LISTS programs)
  run(${program})
endforeach()
