# The tutorial's program writes what kvlane-llama2 writes, and names what it cannot read.
#   cmake -DTUTORIAL=… -DLLAMA2=… -DMODEL=… -P text_test.cmake


foreach(prompt "In the beginning God created" "And it came to pass, that")
  execute_process(COMMAND ${TUTORIAL} ${MODEL} ${prompt} 100 OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${LLAMA2} ${MODEL} --prompt ${prompt} --steps 100 OUTPUT_VARIABLE expected
    ERROR_QUIET COMMAND_ERROR_IS_FATAL ANY)
  string(LENGTH "${expected}" length)
  if(NOT text STREQUAL expected OR length LESS 100)
    message(FATAL_ERROR "the tutorial writes\n${text}\nkvlane-llama2 writes\n${expected}")
  endif()
endforeach()

execute_process(COMMAND ${TUTORIAL} nowhere prompt 1 ERROR_VARIABLE error RESULT_VARIABLE status)
if(NOT status EQUAL 1 OR NOT error STREQUAL "kvlane-tutorial: nowhere/tokenizer.bin cannot be opened\n")
  message(FATAL_ERROR "a model that does not exist: status ${status}, ${error}")
endif()
