# Compares what the decoder of these bindings writes with what REFERENCE, kvlane-llama2, writes: the same tokens with the model
# in the directory MODEL, with one thread and with two.

if(NOT EXISTS ${MODEL}/model.safetensors)
  message("skipped: ${MODEL}/model.safetensors is missing")
  return()
endif()

foreach(prompt "In the beginning" "And he said unto them," "")
  execute_process(COMMAND ${REFERENCE} ${MODEL} --prompt "${prompt}" --steps 64 --cache f32
    OUTPUT_VARIABLE expected ERROR_VARIABLE errors RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "kvlane-llama2: result ${result}, standard error: ${errors}")
  endif()
  foreach(threads 1 2)
    execute_process(
      COMMAND ${CARGO} run --offline --locked --quiet --example decoder -- ${MODEL} --prompt "${prompt}" --steps 64 --cache f32
        --threads ${threads}
      OUTPUT_VARIABLE text ERROR_VARIABLE errors RESULT_VARIABLE result)
    if(NOT result EQUAL 0 OR NOT errors MATCHES "[0-9]+ tokens, .* threads ${threads}, cache f32")
      message(FATAL_ERROR "decoder: result ${result}, standard error: ${errors}")
    endif()
    if(NOT text STREQUAL expected)
      message(FATAL_ERROR "decoder with ${threads} threads wrote\n${text}\nand kvlane-llama2\n${expected}")
    endif()
    message("${errors}")
  endforeach()
endforeach()
