# What the tests of packages share: they build consumer/ with a package, and run it. The variables are those that
# tests/CMakeLists.txt passes to each.

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# Builds the library alone, for the isa scalar.  build_library(DIRECTORY [CMake's arguments])
function(build_library directory)
  run(${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${directory} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
    -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DKVLANE_ISAS=scalar
    -DKVLANE_TESTS=OFF -DKVLANE_BENCH=OFF -DKVLANE_EXAMPLES=OFF -DKVLANE_XSIMD_INCLUDE_DIR=${XSIMD_INCLUDE_DIR} ${ARGN})
  run(${CMAKE_COMMAND} --build ${directory} --config ${BUILD_TYPE} --parallel)
endfunction()

# Builds consumer/.  build_consumer(DIRECTORY [CMake's arguments])
function(build_consumer directory)
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${CONSUMER_DIR} -B ${directory} -G ${GENERATOR}
    -DCMAKE_BUILD_TYPE=${BUILD_TYPE} -DCMAKE_C_COMPILER=${CC} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_C_FLAGS=${C_FLAGS}
    -DCMAKE_CXX_FLAGS=${CXX_FLAGS} -DCMAKE_EXE_LINKER_FLAGS=${LINKER_FLAGS} -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
    "-DCOMPONENTS=${COMPONENTS}" "-DKVLANE_ISAS=${ISAS}" ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
  run(${CMAKE_COMMAND} --build ${directory} --config ${BUILD_TYPE} --parallel)
endfunction()

# Sets <variable> to what pkg-config answers to the arguments, of the package whose libraries are in a directory.
function(ask_pkg_config variable libdir)
  execute_process(COMMAND ${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${libdir}/pkgconfig ${PKG_CONFIG} ${ARGN} kvlane
    OUTPUT_VARIABLE answer OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(answer UNIX_COMMAND "${answer}")
  set(${variable} ${answer} PARENT_SCOPE)
endfunction()

# Builds consumer/'s programs without CMake.  compile_consumer(DIRECTORY CFLAGS LIBS)
function(compile_consumer directory cflags libs)
  separate_arguments(c_flags UNIX_COMMAND "${C_FLAGS}")
  separate_arguments(cxx_flags UNIX_COMMAND "${CXX_FLAGS}")
  separate_arguments(linker_flags UNIX_COMMAND "${LINKER_FLAGS}")
  file(MAKE_DIRECTORY ${directory})
  run(${CC} ${c_flags} ${cflags} ${CONSUMER_DIR}/main.c -o ${directory}/consumer_c ${linker_flags} ${libs})
  run(${CC} ${c_flags} ${cflags} ${CONSUMER_DIR}/bits.c -o ${directory}/consumer_bits ${linker_flags} ${libs} -lm)
  run(${CXX} ${cxx_flags} -std=c++20 ${cflags} ${CONSUMER_DIR}/main.cpp -o ${directory}/consumer_cpp ${linker_flags} ${libs})
endfunction()

# Runs programs of a directory.
function(run_programs directory)
  foreach(program IN LISTS ARGN)
    execute_process(COMMAND ${directory}/${program} OUTPUT_QUIET COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endfunction()
