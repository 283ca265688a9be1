# Fails when a row of isa.inc or formats.inc has no test or no benchmark.
#   cmake -DTESTS=program -DBENCH=program or nothing -DFORMATS_INC=… -DREGISTERED=tests -DEMULATOR=… -P lists.cmake

cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${EMULATOR} ${TESTS} --list-test-cases OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
if(NOT listed MATCHES "isas: ([^\n]+)\n")
  message(FATAL_ERROR "${TESTS} does not list the isas:\n${listed}")
endif()
string(REPLACE " " ";" isas "${CMAKE_MATCH_1}")
foreach(isa IN LISTS isas)
  if(NOT "kvlane.${isa}" IN_LIST REGISTERED)
    message(FATAL_ERROR "isa.inc: no test kvlane.${isa} is registered: ${REGISTERED}")
  endif()
endforeach()

file(STRINGS ${FORMATS_INC} rows REGEX "^KVLANE_FORMAT\\(")
if(BENCH)
  execute_process(COMMAND ${EMULATOR} ${BENCH} --benchmark_list_tests OUTPUT_VARIABLE benchmarks COMMAND_ERROR_IS_FATAL ANY)
endif()
foreach(row IN LISTS rows)
  string(REGEX REPLACE "^KVLANE_FORMAT\\(([a-z0-9]+),.*" "\\1" format "${row}")
  if(NOT listed MATCHES "\n${format} is ")
    message(FATAL_ERROR "formats.inc: no test case says what ${format} is (\"${format} is …\"):\n${listed}")
  endif()
  if(BENCH AND NOT benchmarks MATCHES "/${format}/")
    message(FATAL_ERROR "formats.inc: no benchmark's label has /${format}/:\n${benchmarks}")
  endif()
endforeach()
