# Runs PROGRAM (through EMULATOR, where there is one) over the golden text in MODELS_DIR with caches of few bits: what they cost
# in perplexity, and how far they move a logit, stays within bounds, and rotation and first tokens in f16 save some of it.

include(${CMAKE_CURRENT_LIST_DIR}/models.cmake)
if(NOT model)
  return()
endif()

# Thousandths of a percent that the perplexity is larger than that of f32; and in ${out}_logit the largest difference of one.
function(cost out)
  execute_process(
    COMMAND ${EMULATOR} ${PROGRAM} ${model} --tokenizer ${MODELS_DIR}/tok512.bin --perplexity ${MODELS_DIR}/golden_A.txt ${ARGN}
    OUTPUT_VARIABLE text ERROR_VARIABLE errors RESULT_VARIABLE result)
  if(NOT result EQUAL 0 OR
    NOT text MATCHES "\\(([+-])([0-9]+)\\.([0-9][0-9][0-9]) %\\), largest logit difference ([0-9.]+)\n")
    message(FATAL_ERROR "${ARGN}: result ${result}, ${text}${errors}")
  endif()
  message("${text}")
  math(EXPR cost "${CMAKE_MATCH_1}(${CMAKE_MATCH_2} * 1000 + 1${CMAKE_MATCH_3} - 1000)")
  set(${out} ${cost} PARENT_SCOPE)
  set(${out}_logit ${CMAKE_MATCH_4} PARENT_SCOPE)
endfunction()

function(expect_at_most most cost what)
  if(cost GREATER most)
    message(FATAL_ERROR "${what} costs ${cost} thousandths of a percent of perplexity; at most ${most} are allowed")
  endif()
endfunction()

# The logits' bounds are about twice what is measured: somewhat more or less by isa.
function(expect_close most_logit)
  cost(of_format --cache ${ARGN})
  expect_at_most(200 ${of_format} "${ARGN}")
  if(of_format_logit GREATER most_logit)
    message(FATAL_ERROR "${ARGN} moves a logit by ${of_format_logit}; at most ${most_logit} is allowed")
  endif()
endfunction()
expect_close(0.05 f16)
expect_close(0.3 bf16)
expect_close(1.6 q8)
expect_close(1.6 q8 --precision exact)
expect_close(0.6 q4 --first-f16 1 --recent-f16 1)
cost(plain --cache q4 --rotation none)
cost(rotated --cache q4 --rotation hadamard)
math(EXPR most "${plain} * 3 / 4") # a half here, somewhat more or less by isa
expect_at_most(${most} ${rotated} "q4, rotated,")
cost(first_in_f16 --cache q4 --first-f16 1)
expect_at_most(2000 ${first_in_f16} "q4, with its first tokens in f16,")
