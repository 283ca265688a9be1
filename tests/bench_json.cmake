# Runs short rows of all kinds of BENCH, and compares the file that it writes with
# itself: it must have what the readers of such files want.

set(file ${WORK_DIR}/bench.json)
set(rows "^(decode/qwen2.5-0.5b/(f16|q4)/ctx:128/threads:1/hot|append/llama-3-8b/f16/ctx:1/)")
execute_process(
  COMMAND ${BENCH} --benchmark_filter=${rows} --benchmark_min_time=0.001 --benchmark_out=${file}
    --benchmark_out_format=json
  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${PYTHON} -B ${SOURCE_DIR}/bench/compare.py ${file} ${file} OUTPUT_VARIABLE text COMMAND_ERROR_IS_FATAL ANY)
if(NOT text MATCHES "^3 labels compared, 0 slower")
  message(FATAL_ERROR "three rows were run: ${text}")
endif()
file(READ ${file} json)
if(NOT json MATCHES "\"time_against_f16\": [0-9.e+-]*[1-9]")
  message(FATAL_ERROR "no row says its time against f16")
endif()
