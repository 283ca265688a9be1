# Runs PROGRAM over verses that the model in kjv has not seen: with a cache of f32 their
# perplexity is that of transformers, and what caches of few bits cost stays within bounds.

set(verses "Now faith is the substance of things hoped for, the evidence of things not seen. For by it the elders obtained a good \
report. Through faith we understand that the worlds were framed by the word of God, so that things which are seen were not made of \
things which do appear. By faith Abel offered unto God a more excellent sacrifice than Cain, by which he obtained witness that he \
was righteous, God testifying of his gifts: and by it he being dead yet speaketh. By faith Enoch was translated that he should not \
see death; and was not found, because God had translated him: for before his translation he had this testimony, that he pleased God. \
But without faith it is impossible to please him: for he that cometh to God must believe that he is, and that he is a rewarder of \
them that diligently seek him.")
file(WRITE ${WORK_DIR}/verses.txt "${verses}")
set(by_transformers 244639) # ten-thousandths; tools/train/perplexity.py examples/llama2/kjv PROGRAM --text verses.txt --windows 1

# Fails unless the perplexity with a cache is within most ten-thousandths of that of transformers, and logits within most_logit of
# those with a cache of f32.
function(expect_within most most_logit)
  execute_process(COMMAND ${PROGRAM} ${CMAKE_CURRENT_LIST_DIR}/kjv --perplexity ${WORK_DIR}/verses.txt --cache ${ARGN}
    OUTPUT_VARIABLE text ERROR_VARIABLE errors RESULT_VARIABLE result)
  if(NOT result EQUAL 0 OR
    NOT text MATCHES ": perplexity ([0-9]+)\\.([0-9][0-9][0-9][0-9]).* largest logit difference ([0-9.e-]+)\n")
    message(FATAL_ERROR "${ARGN}: result ${result}, ${text}${errors}")
  endif()
  message("${text}")
  math(EXPR difference "${CMAKE_MATCH_1}${CMAKE_MATCH_2} - ${by_transformers}")
  if(difference GREATER most OR difference LESS -${most})
    message(FATAL_ERROR "--cache ${ARGN}: the perplexity differs from that of transformers by ${difference} ten-thousandths; "
      "at most ${most} are allowed")
  endif()
  if(CMAKE_MATCH_3 GREATER most_logit)
    message(FATAL_ERROR "--cache ${ARGN} moves a logit by ${CMAKE_MATCH_3}; at most ${most_logit} is allowed")
  endif()
endfunction()
expect_within(1 0 f32)
# About twice what is measured: somewhat more or less by isa.
expect_within(10 0.007 f16)
expect_within(10 0.05 bf16)
expect_within(160 0.2 q8)
expect_within(2000 2.5 q4)
expect_within(130 0.16 q4 --first-f16 64 --recent-f16 64)
