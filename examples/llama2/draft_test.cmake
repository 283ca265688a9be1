# Runs PROGRAM (through EMULATOR, where there is one) with caches that keep some tokens in f16, with guesses and without: both
# write the same text.

include(${CMAKE_CURRENT_LIST_DIR}/models.cmake)
if(NOT model)
  return()
endif()

function(write_text draft out)
  execute_process(
    COMMAND ${EMULATOR} ${PROGRAM} ${model} --tokenizer ${MODELS_DIR}/tok512.bin --steps 300 --draft ${draft} ${ARGN}
    OUTPUT_VARIABLE text ERROR_VARIABLE errors RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "--draft ${draft} ${ARGN}: result ${result}, ${errors}")
  endif()
  if(draft GREATER 0 AND NOT errors MATCHES "[1-9][0-9]* of [0-9]+ guesses accepted")
    message(FATAL_ERROR "--draft ${draft} ${ARGN}: no guess was accepted: ${errors}")
  endif()
  message("${errors}")
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

function(expect_same_text)
  write_text(0 plain ${ARGN})
  foreach(draft 5 40)
    write_text(${draft} drafted ${ARGN})
    if(NOT drafted STREQUAL plain)
      message(FATAL_ERROR "--draft ${draft} ${ARGN} writes\n${drafted}\nand without guesses\n${plain}")
    endif()
  endforeach()
endfunction()
expect_same_text(--cache q8 --first-f16 1)
expect_same_text(--cache q4 --first-f16 1)
expect_same_text(--cache q4 --recent-f16 1)
expect_same_text(--cache q8+q4 --first-f16 1 --recent-f16 64)
