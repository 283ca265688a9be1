# Runs DEMO, whose text the model in CHECKPOINT writes: what runs, the text, its speed, then the table; drafts and threads change
# no byte of the text.
#   cmake -DDEMO=program -DCHECKPOINT=directory -P demo_text.cmake

cmake_minimum_required(VERSION 3.25)

if(NOT EXISTS ${CHECKPOINT}/model.safetensors)
  message("skipped: no model in ${CHECKPOINT}")
  return()
endif()

# Sets head, text and speeds: what DEMO prints before the table.
function(run)
  execute_process(COMMAND ${DEMO} --model qwen2.5-0.5b --format f16 --ctx 64 --seconds 1 ${ARGN}
    OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
  set(head "[a-z]+: a Llama of [0-9]+ layers, [0-9.]+ million weights[^\n]*")
  set(speeds "prompt [1-9][0-9]* tokens, [1-9][0-9]* tokens/s. generation [1-9][0-9]* tokens, [1-9][0-9]* tokens/s\n[^\n]*")
  if(NOT status EQUAL 0 OR NOT err STREQUAL "" OR
    NOT out MATCHES "^(${head})\n\n(.*)\n\n(${speeds})\n+kvlane .*\nqwen2.5-0.5b .*\nAll results are right.\n$")
    message(FATAL_ERROR "${ARGN}: status ${status}, ${err}${out}")
  endif()
  set(head "${CMAKE_MATCH_1}")
  set(text "${CMAKE_MATCH_2}")
  set(speeds "${CMAKE_MATCH_3}")
  message("${head}\n${text}\n${speeds}")
  return(PROPAGATE head text speeds)
endfunction()

function(expect what value pattern)
  if(NOT value MATCHES "${pattern}")
    message(FATAL_ERROR "${what} is\n${value}\nand not ${pattern}")
  endif()
endfunction()

run(--threads 1)
set(plain "${text}")
expect("the head" "${head}" "; cache f16, isa [a-z0-9_]+, 1 thread$")
expect("the text" "${text}" "^In the beginning.")

run(--draft 4 --threads 2)
expect("the speed" "${speeds}" "\n[0-9]+ of [1-9][0-9]* drafted tokens accepted .*, [1-9].[0-9][0-9] tokens per pass$")
if(NOT text STREQUAL plain)
  message(FATAL_ERROR "with drafts the text is\n${text}\nand without\n${plain}")
endif()

run(--prompt "And the people" --cache q8+q4 --tokens 9 --threads 1)
expect("the head" "${head}" "; cache q8\\+q4, ")
expect("the text" "${text}" "^And the people.")
expect("the speed" "${speeds}" "generation 9 tokens")

execute_process(COMMAND ${DEMO} --tokens 5000 OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
if(NOT status EQUAL 2 OR NOT out STREQUAL "" OR
  NOT err MATCHES "--tokens is 5000; behind the prompt's [0-9]+ it must be at most [0-9]+\n$")
  message(FATAL_ERROR "--tokens 5000: status ${status}, ${err}${out}")
endif()
