# kvlane check: it finds this build right, and with a library that is WRONG in one way, that property wrong and no other.
#   cmake -DPROGRAM=kvlane -DISAS=… -DSHIM=… -P check_test.cmake
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

list(GET ISAS 0 portable)
prints("^${portable}\n;\nAll properties hold[.]\n$" check)
if(out MATCHES "FAILED")
  message(FATAL_ERROR "a property failed, but the check did not:\n${out}")
endif()

# KVLANE_ISA chooses one isa.
set(ENV{KVLANE_ISA} ${portable})
prints("^${portable}\n(  [^\n]+\n)+\nAll properties hold[.]\n$" check)

if(NOT SHIM)
  return()
endif()
set(ENV{LD_PRELOAD} ${SHIM})
function(notices wrong line n_failed)
  set(ENV{WRONG} ${wrong})
  run(check)
  string(REGEX MATCHALL " FAILED\n" failures "${out}")
  list(LENGTH failures n)
  if(NOT status EQUAL 1 OR NOT out MATCHES "\n  ${line} +[^\n]*FAILED\n" OR NOT out MATCHES "\nFAILED on ${portable}[.]\n$"
      OR NOT n EQUAL n_failed)
    message(FATAL_ERROR "${wrong} is wrong, but status is ${status} and ${n} properties failed:\n${out}${err}")
  endif()
endfunction()
notices(storage "f16 storage, largest error" 5)
notices(accuracy "bf16 attention, relative error" 7)
notices(threads "2, 3, 4 and 8 threads" 1)
notices(batch "batch of sequences" 1)
notices(pieces "prompt in pieces" 1)
notices(blocks "paged cache" 1)
