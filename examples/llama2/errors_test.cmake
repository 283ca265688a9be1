# Runs PROGRAM (through EMULATOR, where there is one) on arguments that are wrong. It must say so in one line on standard
# error, write nothing else and return 1.

function(expect_error pattern)
  execute_process(COMMAND ${EMULATOR} ${PROGRAM} ${ARGN} OUTPUT_VARIABLE text ERROR_VARIABLE errors RESULT_VARIABLE result)
  if(NOT result EQUAL 1 OR NOT text STREQUAL "" OR NOT errors MATCHES "^kvlane-llama2: [^\n]*${pattern}[^\n]*\n$")
    list(JOIN ARGN " " arguments)
    message(FATAL_ERROR "${arguments}\nresult ${result}\nstandard output: ${text}\nstandard error: ${errors}\n"
      "expected: ${pattern}")
  endif()
endfunction()

set(short ${WORK_DIR}/short_checkpoint.bin)
set(wrong ${WORK_DIR}/wrong_checkpoint.bin)
file(WRITE ${short} "llama")
file(WRITE ${wrong} "this is text, and no llama at all")

expect_error("CHECKPOINT is required")
expect_error("--tokenizer is required" ${wrong})
expect_error("missing.bin: No such file" missing.bin --tokenizer ${wrong})
expect_error("short_checkpoint.bin: it is 5 bytes; the header of a checkpoint alone is 28" ${short} --tokenizer ${wrong})
expect_error("wrong_checkpoint.bin: dim is 1936287860; it must be 1 to 1048576" ${wrong} --tokenizer ${wrong})
expect_error("--steps" ${wrong} --tokenizer ${wrong} --steps 0)
expect_error("--threads" ${wrong} --tokenizer ${wrong} --threads 0)
expect_error("--seed" ${wrong} --tokenizer ${wrong} --seed -1)
expect_error("--temperature is -1" ${wrong} --tokenizer ${wrong} --temperature -1)
expect_error("--temperature is nan" ${wrong} --tokenizer ${wrong} --temperature nan)
expect_error("f64.*f32" ${wrong} --tokenizer ${wrong} --cache f64)
expect_error("f16\\+f64|f64.*f32" ${wrong} --tokenizer ${wrong} --cache f16+f64)
expect_error("--rotation" ${wrong} --tokenizer ${wrong} --rotation 90)
expect_error("--precision" ${wrong} --tokenizer ${wrong} --precision half)
expect_error("--draft is 65; it must be at most 64 with --first-f16 or --recent-f16"
  ${wrong} --tokenizer ${wrong} --cache q8 --first-f16 1 --draft 65)
expect_error("--unknown" ${wrong} --tokenizer ${wrong} --unknown)
