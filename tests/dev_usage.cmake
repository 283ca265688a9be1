# The developer entry point says what it can do: on standard output where it is asked, as an error where it is not.
#   cmake -DDEV=… -P dev_usage.cmake

execute_process(COMMAND ${DEV} --help OUTPUT_VARIABLE usage ERROR_VARIABLE errors RESULT_VARIABLE status)
if(NOT status EQUAL 0 OR NOT usage MATCHES "dev test" OR NOT errors STREQUAL "")
  message(FATAL_ERROR "--help: status ${status}, on standard output:\n${usage}\nas an error:\n${errors}")
endif()
include(${CMAKE_CURRENT_LIST_DIR}/width.cmake)
check_width("${usage}")

execute_process(COMMAND ${DEV} tset OUTPUT_VARIABLE usage ERROR_VARIABLE errors RESULT_VARIABLE status)
if(NOT status EQUAL 2 OR NOT errors MATCHES "unknown command \"tset\"" OR NOT usage STREQUAL "")
  message(FATAL_ERROR "an unknown command: status ${status}, on standard output:\n${usage}\nas an error:\n${errors}")
endif()

execute_process(COMMAND ${DEV} bench --against no-such-revision OUTPUT_VARIABLE output ERROR_VARIABLE errors RESULT_VARIABLE status)
if(NOT status EQUAL 2 OR NOT errors MATCHES "git knows no revision \"no-such-revision\"" OR NOT output STREQUAL "")
  message(FATAL_ERROR "an unknown revision: status ${status}, on standard output:\n${output}\nas an error:\n${errors}")
endif()
