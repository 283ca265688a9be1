# Programs that were compiled with the header of the last release, with today's, and with a later one, run with this library:
# they print the same.
#   cmake -DPROGRAMS=<paths> -P abi.cmake
foreach(program IN LISTS PROGRAMS)
  execute_process(COMMAND ${EMULATOR} ${program} OUTPUT_VARIABLE printed RESULT_VARIABLE status)
  if(NOT status EQUAL 0 OR NOT printed MATCHES "merged")
    message(FATAL_ERROR "${program} ends with ${status}: ${printed}")
  endif()
  if(NOT DEFINED expected)
    set(expected "${printed}")
  elseif(NOT printed STREQUAL expected)
    message(FATAL_ERROR "${program} prints ${printed}\nand the first one ${expected}")
  endif()
endforeach()
