# Fails when today's header breaks the ABI of the last release; see docs/abi.md. Both headers are compiled to libraries of
# empty functions, whose debug information has all types, and abidiff compares these.
#   cmake -DCC=… -DABIDIFF=… -DOLD=header -DNEW=header -DWORK_DIR=… -P diff.cmake

cmake_minimum_required(VERSION 3.25)

file(READ ${OLD} old)
file(READ ${NEW} new)

# What a struct that begins with struct_size may do is done here: abidiff's suppressions of appended fields would hide every
# other change of the same struct, and of the types that it points to.
string(REGEX MATCHALL "struct kvl_[a-z_]+ {\n    size_t struct_size" structs "${old}")
foreach(struct IN LISTS structs)
  string(REGEX MATCH "${struct};[^}]*[ *]([a-z0-9_]+);\n}" old_fields "${old}")
  set(last ${CMAKE_MATCH_1})
  # Fields that today's struct appends are removed.
  string(REGEX REPLACE "(${struct};[^}]*[ *]${last};)[^}]*}" "\\1\n}" new "${new}")
  # A pointer to float that is a pointer to void today becomes one.
  string(REGEX MATCH "${struct};[^}]*}" new_fields "${new}")
  string(REGEX MATCHALL "void \\*[a-z0-9_]+" pointers "${new_fields}")
  set(widened_fields "${old_fields}")
  foreach(pointer IN LISTS pointers)
    string(REPLACE "void" "float" earlier "${pointer}")
    string(REPLACE "${earlier};" "${pointer};" widened_fields "${widened_fields}")
  endforeach()
  string(REPLACE "${old_fields}" "${widened_fields}" old "${old}")
endforeach()

file(MAKE_DIRECTORY ${WORK_DIR})
foreach(version old new)
  string(REGEX REPLACE "\n(KVL_API [^;]+);" "\n\\1 { __builtin_trap(); }" library "${${version}}")
  # Compilers describe an enumeration only if something has its type.
  string(REGEX REPLACE "\nenum {([ \n]*)(KVL_[A-Z0-9_]+)([^}]*)};" "\nenum {\\1\\2\\3} enum_of_\\2;" library "${library}")
  file(WRITE ${WORK_DIR}/${version}.c "${library}")
  execute_process(COMMAND ${CC} -std=c11 -g -fPIC -shared -o ${WORK_DIR}/${version}.so ${WORK_DIR}/${version}.c
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND ${ABIDIFF} --no-default-suppression --suppressions ${CMAKE_CURRENT_LIST_DIR}/suppressions.abignore
  ${WORK_DIR}/old.so ${WORK_DIR}/new.so RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${NEW} breaks the ABI of ${OLD}: abidiff ends with ${status}")
endif()
