# Configures the library with values of KVLANE_ISAS: which isas are built, and what is refused and why.
#   cmake -DSOURCE_DIR=… -DWORK_DIR=… -DCC=… -DCXX=… -DGENERATOR=… -DXSIMD_INCLUDE_DIR=… -DPROCESSOR=… -DWIDEST=isa
#     -P isas.cmake

cmake_minimum_required(VERSION 3.25)

# Sets status, and text: both streams with single spaces.
function(configure isas)
  file(REMOVE_RECURSE ${WORK_DIR})
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE_DIR} -B ${WORK_DIR} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_C_COMPILER=${CC} -DKVLANE_XSIMD_INCLUDE_DIR=${XSIMD_INCLUDE_DIR} -DKVLANE_TESTS=OFF -DKVLANE_BENCH=OFF
    -DKVLANE_EXAMPLES=OFF "-DKVLANE_ISAS=${isas}" ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  string(REGEX REPLACE "[ \n]+" " " text "${text}")
  return(PROPAGATE status text)
endfunction()

function(builds isas expected)
  configure("${isas}")
  if(NOT status EQUAL 0 OR NOT text MATCHES "-- isas: ${expected} -- ")
    message(FATAL_ERROR "KVLANE_ISAS=${isas}: expected ${expected}; status ${status}: ${text}")
  endif()
endfunction()

function(refuses isas reason)
  configure("${isas}" ${ARGN})
  if(status EQUAL 0 OR NOT text MATCHES "${reason}")
    message(FATAL_ERROR "KVLANE_ISAS=${isas}: expected ${reason}; status ${status}: ${text}")
  endif()
endfunction()

builds("scalar" "scalar")
set(both scalar)
if(NOT WIDEST STREQUAL "scalar")
  set(both "scalar ${WIDEST}")
endif()
builds("native" "${both}")
builds("${WIDEST};scalar;native;${WIDEST}" "${both}")
refuses("${WIDEST};sse9" "KVLANE_ISAS has \"sse9\"; it must be all, native or of scalar, ")
refuses("native" "native is of this machine: name isas for another, or all" -DCMAKE_SYSTEM_NAME=Linux
  -DCMAKE_SYSTEM_PROCESSOR=${PROCESSOR})
