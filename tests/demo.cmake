# Runs DEMO as a user or a script would, on rows that take little: what it refuses, and what its outputs look like in a pipe.
#   cmake -DDEMO=program -DMODELS_INC=… -DVERSION=… -P demo.cmake

cmake_minimum_required(VERSION 3.25)

# Runs DEMO; sets merged to both streams as one log has them, or out and err, and status.
function(run_merged)
  execute_process(COMMAND ${DEMO} ${ARGV} OUTPUT_VARIABLE merged ERROR_VARIABLE merged RESULT_VARIABLE status)
  return(PROPAGATE merged status)
endfunction()
function(run)
  execute_process(COMMAND ${DEMO} ${ARGV} OUTPUT_VARIABLE out ERROR_VARIABLE err RESULT_VARIABLE status)
  return(PROPAGATE out err status)
endfunction()

include(${CMAKE_CURRENT_LIST_DIR}/width.cmake)

# The table: lists in every form, 80 columns, and nothing of what is for a terminal.
set(small --model qwen2.5-0.5b --seconds 1)
run_merged(${small} --format f16,q4 --format q8 --ctx 64 100)
string(REGEX MATCHALL "\nqwen2.5-0.5b +(f16|q8|q4) +(64|100) [^\n]*" rows "${merged}")
list(LENGTH rows n_rows)
if(NOT status EQUAL 0 OR NOT n_rows EQUAL 6)
  message(FATAL_ERROR "six right rows were asked for; status ${status}:\n${merged}")
endif()
check_width("${merged}")
if(merged MATCHES "\r| of 6|s left")
  message(FATAL_ERROR "progress is for terminals alone:\n${merged}")
endif()

# JSON: one document on stdout, nothing on stderr.
run(${small} --format q4 --ctx 64 --threads 1 --json)
string(JSON version ERROR_VARIABLE json_error GET "${out}" context kvlane_version)
string(JSON n_rows LENGTH "${out}" rows)
string(JSON format GET "${out}" rows 0 format)
string(JSON naive_format GET "${out}" rows 0 naive_format)
string(JSON threads GET "${out}" context threads)
string(JSON speed GET "${out}" rows 0 kv_bytes_per_second)
if(json_error OR NOT status EQUAL 0 OR NOT err STREQUAL "" OR NOT version STREQUAL VERSION OR NOT n_rows EQUAL 1
    OR NOT format STREQUAL "q4" OR NOT naive_format STREQUAL "f16" OR NOT threads EQUAL 1 OR NOT speed GREATER 0)
  message(FATAL_ERROR "status ${status}, JSON:\n${out}${err}")
endif()

# The shortest context, at every model's geometry.
file(STRINGS ${MODELS_INC} models REGEX "^MODEL\\(")
list(TRANSFORM models REPLACE "^MODEL\\(\"([^\"]+)\".*" "\\1")
list(JOIN models "," all_models)
list(LENGTH models n_models)
run(--model ${all_models} --ctx 1 --format f16 --seconds 1)
string(REGEX MATCHALL " f16 +1 " rows "${out}")
list(LENGTH rows n_rows)
if(NOT status EQUAL 0 OR NOT n_rows EQUAL n_models)
  message(FATAL_ERROR "${n_models} models have a context of 1; status ${status}:\n${out}${err}")
endif()
check_width("${out}")

# What is refused is named, with its value and what is allowed, before anything is measured.
function(refuses pattern)
  run(${ARGN})
  if(NOT status EQUAL 2 OR NOT out STREQUAL "" OR NOT err MATCHES "${pattern}")
    message(FATAL_ERROR "${ARGN}: status ${status}, expected 2 and ${pattern}:\n${out}${err}")
  endif()
endfunction()
refuses("--model: \"llama-9\" is none of llama-3-8b, " --model llama-3-8b,llama-9)
refuses("--format: \"f17\" is none of f32, f16, " --format f16,f17)
refuses("--ctx: \"0\" is not a number from 1 to " --ctx 512,0)
refuses("--ctx: \"5k\" is not a number from 1 to " --ctx 5k)
refuses("--ctx: \"9999999999\" is not a number from 1 to " --ctx 9999999999)
refuses("--threads: \"0\" is not a number from 1 to " --threads 0)
refuses("--seconds: \"0\" is not a number from 1 to " --seconds 0)
refuses("--contexts" --contexts 512)
if(EXISTS /proc/meminfo)
  refuses("--ctx: 2147483648 tokens of llama-2-7b in f32 take [0-9.]+ GB.*must be at most [0-9]+"
    --model llama-2-7b --format f32 --ctx 1,2147483648)
endif()

run(--version)
if(NOT status EQUAL 0 OR NOT out STREQUAL "kvlane ${VERSION}\n")
  message(FATAL_ERROR "--version: status ${status}:\n${out}${err}")
endif()
run(--help)
check_width("${out}")
foreach(model IN LISTS models)
  if(NOT status EQUAL 0 OR NOT out MATCHES "\n  ${model} +[0-9]+ +[0-9]+ +[0-9]+\n")
    message(FATAL_ERROR "--help does not list ${model}; status ${status}:\n${out}${err}")
  endif()
endforeach()
