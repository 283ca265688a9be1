# What the tests of the command share: PROGRAM runs, its text has at most 80 columns, and what it refuses is named.

include(${CMAKE_CURRENT_LIST_DIR}/../../tests/width.cmake)

# Runs PROGRAM; sets out, err and status.
function(run)
  execute_process(COMMAND ${PROGRAM} ${ARGV} OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
  if(NOT out MATCHES "^{") # JSON
    check_width("${out}")
  endif()
  check_width("${err}")
  return(PROPAGATE out err status)
endfunction()

# Runs PROGRAM, which succeeds and prints all of the patterns.
function(prints patterns)
  run(${ARGN})
  if(NOT status EQUAL 0 OR NOT err STREQUAL "")
    message(FATAL_ERROR "${ARGN}: status ${status}:\n${out}${err}")
  endif()
  foreach(pattern IN LISTS patterns)
    if(NOT out MATCHES "${pattern}")
      message(FATAL_ERROR "${ARGN}: there is no ${pattern} in\n${out}")
    endif()
  endforeach()
  return(PROPAGATE out)
endfunction()

# Runs PROGRAM, which prints nothing but an error, on as many lines as it needs, and ends with status 2.
function(refuses pattern)
  run(${ARGN})
  string(REGEX REPLACE "[ \n]+" " " text "${err}")
  if(NOT status EQUAL 2 OR NOT out STREQUAL "" OR NOT text MATCHES "${pattern}")
    message(FATAL_ERROR "${ARGN}: status ${status}, expected 2 and ${pattern}:\n${out}${err}")
  endif()
endfunction()

# Fails unless a member of the JSON document has that value: expect_json(DOCUMENT VALUE MEMBER...)
function(expect_json document expected)
  string(JSON value ERROR_VARIABLE error GET "${document}" ${ARGN})
  if(error OR NOT value STREQUAL expected)
    message(FATAL_ERROR "${ARGN} should be ${expected}, but is ${value} ${error}:\n${document}")
  endif()
endfunction()
