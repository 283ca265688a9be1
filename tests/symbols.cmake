# Fails on a weak symbol of an isa's objects that does not carry the isa's name: the linker keeps one of all objects'
# weak symbols of a name, and could keep one that is compiled for a wider CPU.
#   cmake -DNM=… -DOBJECTS=… -DISA=… -P symbols.cmake

execute_process(COMMAND ${NM} -P ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+ [WVu] " weak_symbols "${symbols}")
string(LENGTH ${ISA} length)
set(shared "")
foreach(symbol IN LISTS weak_symbols)
  if(NOT symbol MATCHES "[^0-9]${length}${ISA}")
    list(APPEND shared ${symbol})
  endif()
endforeach()
if(NOT symbols MATCHES "table_${ISA}E ")
  message(FATAL_ERROR "${OBJECTS} has no table of ${ISA}'s kernels")
endif()
if(shared)
  list(JOIN shared "\n  " text)
  message(FATAL_ERROR "${OBJECTS} has weak symbols that other isas may share:\n  ${text}")
endif()
