# Runs PROGRAM (through EMULATOR, where there is one) on ISA in each of FORMATS with each of THREADS, with guesses and without,
# and compares what it writes with the golden text in MODELS_DIR, byte for byte.

include(${CMAKE_CURRENT_LIST_DIR}/models.cmake)
set(golden ${MODELS_DIR}/golden_A.txt)
if(NOT model)
  return()
endif()

set(ENV{KVLANE_ISA} ${ISA})
set(ENV{OMP_WAIT_POLICY} passive) # threads that spin are slow where other tests run beside them
foreach(format IN LISTS FORMATS)
  foreach(n_threads IN LISTS THREADS)
    foreach(draft 0 5)
      set(name llama2.${ISA}.${format}.threads:${n_threads}.draft:${draft})
      set(text ${WORK_DIR}/llama2.${ISA}.${format}.${n_threads}.${draft}.txt)
      execute_process(
        COMMAND ${EMULATOR} ${PROGRAM} ${model} --tokenizer ${MODELS_DIR}/tok512.bin --steps 200 --cache ${format}
          --threads ${n_threads} --draft ${draft}
        OUTPUT_FILE ${text} ERROR_VARIABLE errors RESULT_VARIABLE result)
      if(errors MATCHES "KVLANE_ISA is ")
        message("skipped: ${errors}")
        return()
      endif()
      if(NOT result EQUAL 0 OR NOT errors MATCHES "isa ${ISA}, threads ${n_threads}, cache ${format}")
        message(FATAL_ERROR "${name}: result ${result}, standard error: ${errors}")
      endif()
      if(draft GREATER 0 AND NOT errors MATCHES "[1-9][0-9]* of [0-9]+ guesses accepted")
        message(FATAL_ERROR "${name}: no guess was accepted: ${errors}")
      endif()
      execute_process(COMMAND ${CMAKE_COMMAND} -E compare_files ${text} ${golden} RESULT_VARIABLE differs)
      if(differs)
        message(FATAL_ERROR "${name}: ${text} is not ${golden}")
      endif()
      message("${name}: ${errors}")
    endforeach()
  endforeach()
endforeach()
