# Uses the package as its users do: builds consumer/ with it, and runs what was built.
#   cmake -DUSE=install | find_package | c_alone | pkg_config | fast_math | fast_math_lto … -P package.cmake

set(prefix ${WORK_DIR}/prefix)
set(programs consumer_c consumer_bits consumer_cpp)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(build_consumer)
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${WORK_DIR}/${USE} -G ${GENERATOR}
    -DCMAKE_BUILD_TYPE=${BUILD_TYPE} -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_C_FLAGS=${C_FLAGS}
    -DCMAKE_CXX_FLAGS=${CXX_FLAGS} -DCMAKE_EXE_LINKER_FLAGS=${LINKER_FLAGS} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
    "-DCOMPONENTS=${COMPONENTS}" "-DKVLANE_ISAS=${ISAS}" ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
  run(${CMAKE_COMMAND} --build ${WORK_DIR}/${USE} --config ${BUILD_TYPE} --parallel)
endfunction()

# Sets <variable> to what pkg-config answers, of a file that finds its installation by itself.
function(ask_pkg_config variable installed)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${installed}/${LIBDIR}/pkgconfig
    ${PKG_CONFIG} ${ARGN} kvlane
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(answer UNIX_COMMAND "${answer}")
  set(${variable} ${answer} PARENT_SCOPE)
endfunction()

# Sets <variable> to the bits that a build's program prints on an isa, or to nothing where the CPU lacks it.
function(ask_bits variable program isa)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env KVLANE_ISA=${isa} ${program}
    OUTPUT_VARIABLE bits ERROR_VARIABLE text RESULT_VARIABLE failed)
  if(failed AND text MATCHES "this build on this CPU has")
    message("${isa} is left out: this CPU lacks it")
    set(${variable} "" PARENT_SCOPE)
    return()
  elseif(failed OR NOT bits MATCHES "^isa ${isa}\n.*\nlse [0-9a-f]+")
    message(FATAL_ERROR "${program} prints no bits of ${isa}: ${bits}${text}")
  endif()
  set(${variable} "${bits}" PARENT_SCOPE)
endfunction()

if(USE STREQUAL "install")
  file(REMOVE_RECURSE ${WORK_DIR})
  run(${CMAKE_COMMAND} --install ${BINARY_DIR} --prefix ${prefix} --config ${BUILD_TYPE})
  if(NOT EXISTS ${prefix}/${DOCDIR}/LICENSE)
    message(FATAL_ERROR "${prefix}/${DOCDIR} has no LICENSE")
  endif()
  return()
elseif(USE STREQUAL "find_package")
  build_consumer(-DCMAKE_PREFIX_PATH=${prefix} -DVERSION=${VERSION})
elseif(USE STREQUAL "c_alone")
  # The static library, which needs the C++ one.
  run(${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${WORK_DIR}/static -G ${GENERATOR} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
    -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DBUILD_SHARED_LIBS=OFF
    -DKVLANE_ISAS=scalar -DKVLANE_TESTS=OFF -DKVLANE_BENCH=OFF -DKVLANE_EXAMPLES=OFF
    -DKVLANE_XSIMD_INCLUDE_DIR=${XSIMD_INCLUDE_DIR})
  run(${CMAKE_COMMAND} --build ${WORK_DIR}/static --config ${BUILD_TYPE} --parallel)
  run(${CMAKE_COMMAND} --install ${WORK_DIR}/static --prefix ${WORK_DIR}/static_prefix --config ${BUILD_TYPE})
  set(programs consumer_c consumer_bits)
  set(COMPONENTS "")
  build_consumer(-DCMAKE_PREFIX_PATH=${WORK_DIR}/static_prefix -DVERSION=${VERSION} -DC_ALONE=ON)
  if(PKG_CONFIG)
    ask_pkg_config(flags ${WORK_DIR}/static_prefix --cflags --libs --static)
    run(${CC} ${CONSUMER_DIR}/main.c -o ${WORK_DIR}/${USE}/consumer_pkg_config ${flags})
    list(APPEND programs consumer_pkg_config)
  endif()
elseif(USE MATCHES "^fast_math")
  # A project that adds the sources by add_subdirectory, and allows its compiler to change results, of which these may not be:
  # static, and shared with link-time optimisation, where the library may not change how its program treats subnormal numbers either.
  string(APPEND CXX_FLAGS " -Ofast -ffast-math -ffinite-math-only -funsafe-math-optimizations -ffp-contract=fast")
  set(shared OFF)
  if(USE STREQUAL "fast_math_lto")
    set(shared ON)
    string(APPEND CXX_FLAGS " -flto")
    list(FILTER ISAS EXCLUDE REGEX "sse2")
  endif()
  set(COMPONENTS "")
  build_consumer(-DKVLANE_DIRECTORY=${SOURCE_DIR} -DKVLANE_XSIMD_INCLUDE_DIR=${XSIMD_INCLUDE_DIR} -DBUILD_SHARED_LIBS=${shared})
  foreach(isa IN LISTS ISAS)
    ask_bits(bits ${WORK_DIR}/${USE}/consumer_bits ${isa})
    ask_bits(expected ${WORK_DIR}/find_package/consumer_bits ${isa})
    if(NOT bits STREQUAL expected)
      message(FATAL_ERROR "the flags change the bits of ${isa}: compare what these print with KVLANE_ISA=${isa}:\n"
        "${WORK_DIR}/${USE}/consumer_bits\n${WORK_DIR}/find_package/consumer_bits")
    endif()
  endforeach()
  if(shared)
    run(${WORK_DIR}/${USE}/consumer_bits --subnormal)
  endif()
elseif(USE STREQUAL "pkg_config")
  if(NOT PKG_CONFIG)
    message("skipped: pkg-config is missing")
    return()
  endif()
  file(REMOVE_RECURSE ${WORK_DIR}/moved)
  file(COPY ${prefix}/ DESTINATION ${WORK_DIR}/moved)
  ask_pkg_config(cflags ${WORK_DIR}/moved --cflags)
  ask_pkg_config(libs ${WORK_DIR}/moved --libs ${STATIC})
  separate_arguments(c_flags UNIX_COMMAND "${C_FLAGS}")
  separate_arguments(cxx_flags UNIX_COMMAND "${CXX_FLAGS}")
  separate_arguments(linker_flags UNIX_COMMAND "${LINKER_FLAGS}")
  list(APPEND linker_flags ${libs} -Wl,-rpath,${WORK_DIR}/moved/${LIBDIR})
  file(MAKE_DIRECTORY ${WORK_DIR}/${USE})
  run(${CC} ${c_flags} ${cflags} ${CONSUMER_DIR}/main.c -o ${WORK_DIR}/${USE}/consumer_c ${linker_flags})
  run(${CC} ${c_flags} ${cflags} ${CONSUMER_DIR}/bits.c -o ${WORK_DIR}/${USE}/consumer_bits ${linker_flags} -lm)
  run(${CXX} ${cxx_flags} -std=c++20 ${cflags} ${CONSUMER_DIR}/main.cpp -o ${WORK_DIR}/${USE}/consumer_cpp ${linker_flags})
endif()

foreach(program IN LISTS programs)
  execute_process(COMMAND ${WORK_DIR}/${USE}/${program} OUTPUT_QUIET COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endforeach()
