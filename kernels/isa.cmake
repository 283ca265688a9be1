# The isas that are built: the list kvlane_isas, of those rows of isa.inc that this target's processor family has, and
# kvlane_add_isa_objects, which compiles for them.

set(KVLANE_ISAS all CACHE STRING
  "Instruction sets to build: all of the target's family; native, the widest of this CPU; or a list of names. scalar always is")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(family x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(family arm)
else()
  set(family none)
endif()

# For aarch64, g++ moves loads ahead and sums behind before it allocates registers, and then has too few of them for the
# micro-kernel's accumulators.
set(family_flags "")
if(family STREQUAL "arm" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(family_flags -fno-schedule-insns -fno-tree-ter)
endif()
# For Windows, whose stacks are aligned to 16 bytes, g++ may move wider vectors there as if these were aligned: the assembler
# writes moves that need no alignment, which cost the same.
if(family STREQUAL "x86" AND MINGW AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(family_flags -Wa,-muse-unaligned-vector-move)
endif()

set(isa_inc ${CMAKE_CURRENT_LIST_DIR}/isa.inc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${isa_inc})
file(STRINGS ${isa_inc} isa_rows REGEX "^KVLANE_ISA\\(")
set(KVLANE_SIMD_DIR ${CMAKE_CURRENT_LIST_DIR}/simd)
set(family_isas "")
foreach(row IN LISTS isa_rows)
  if(NOT row MATCHES "^KVLANE_ISA\\(([a-z0-9_]+), ([a-z0-9]+), ([^\"]*), \"([^\"]*)\"\\)$")
    message(FATAL_ERROR "isa.inc: this row is not KVLANE_ISA(name, family, features, \"flags\"): ${row}")
  endif()
  set(name ${CMAKE_MATCH_1})
  set(row_family ${CMAKE_MATCH_2})
  set(features_${name} ${CMAKE_MATCH_3})
  separate_arguments(flags UNIX_COMMAND "${CMAKE_MATCH_4}")
  if(row_family STREQUAL "any" OR row_family STREQUAL family)
    list(APPEND family_isas ${name})
    set(KVLANE_ISA_FLAGS_${name} ${flags} ${family_flags})
  endif()
endforeach()

# Writes <directory>/built_isas.inc, by which C++ knows the isas that follow: KVLANE_ISA_ROW(name, features) for each.
function(kvlane_write_isas directory)
  set(text "// Written by isa.cmake: the isas of this build, in the order of isa.inc.\n")
  foreach(name IN LISTS ARGN)
    string(APPEND text "KVLANE_ISA_ROW(${name}, ${features_${name}})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${directory}/built_isas.inc CONTENT "${text}#undef KVLANE_ISA_ROW\n" @ONLY)
endfunction()

# Sets <variable> to the widest isa of this CPU, as the library itself would choose it.
function(kvlane_widest_isa variable)
  if(CMAKE_CROSSCOMPILING)
    message(FATAL_ERROR "KVLANE_ISAS is \"${KVLANE_ISAS}\"; native is of this machine: name isas for another, or all")
  endif()
  if(NOT KVLANE_WIDEST_ISA)
    set(work_dir ${PROJECT_BINARY_DIR}/widest_isa)
    kvlane_write_isas(${work_dir} ${family_isas})
    try_run(ran compiled ${work_dir}
      SOURCES ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/widest_isa.cpp ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/cpu.cpp
      CMAKE_FLAGS -DINCLUDE_DIRECTORIES=${work_dir} CXX_STANDARD 20
      COMPILE_OUTPUT_VARIABLE compiler_output RUN_OUTPUT_VARIABLE widest)
    if(NOT compiled OR NOT ran EQUAL 0)
      message(FATAL_ERROR "KVLANE_ISAS is native, but this CPU's isa cannot be found out:\n${compiler_output}")
    endif()
    set(KVLANE_WIDEST_ISA ${widest} CACHE INTERNAL "The widest isa of this CPU")
  endif()
  set(${variable} ${KVLANE_WIDEST_ISA} PARENT_SCOPE)
endfunction()

set(chosen_isas scalar)
foreach(name IN LISTS KVLANE_ISAS)
  if(name STREQUAL "all")
    list(APPEND chosen_isas ${family_isas})
  elseif(name STREQUAL "native")
    kvlane_widest_isa(widest)
    list(APPEND chosen_isas ${widest})
  elseif(name IN_LIST family_isas)
    list(APPEND chosen_isas ${name})
  else()
    list(JOIN family_isas ", " text)
    message(FATAL_ERROR "KVLANE_ISAS has \"${name}\"; it must be all, native or of ${text}")
  endif()
endforeach()
set(kvlane_isas "")
foreach(name IN LISTS family_isas) # in the order of isa.inc, each once
  if(name IN_LIST chosen_isas)
    list(APPEND kvlane_isas ${name})
  endif()
endforeach()
list(JOIN kvlane_isas " " text)
message(STATUS "isas: ${text}")
set(KVLANE_GENERATED_DIR ${PROJECT_BINARY_DIR}/generated)
kvlane_write_isas(${KVLANE_GENERATED_DIR} ${kvlane_isas})

option(KVLANE_SANITIZE_KERNELS "Let the sanitizers of CMAKE_CXX_FLAGS watch the kernels too" ON)

# Compiles sources once for every isa, as object libraries <prefix>_<isa>. They are optimised in every build type: an
# inline function that is left out of line could be linked into code that an older CPU runs. Sanitizers take many minutes over
# what is unrolled here: for them it is optimised and described less, the scopes of its variables are not watched, and what the
# address sanitizer or the CPU would stop at is left to these; clang, the slower, looks for undefined behaviour in scalar alone.
function(kvlane_add_isa_objects prefix)
  set(optimisation -O3)
  set(in_scalar_alone "")
  if(NOT KVLANE_SANITIZE_KERNELS)
    list(APPEND optimisation -fno-sanitize=all)
  elseif(CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
    set(optimisation -O1 -g1 -fno-sanitize-address-use-after-scope)
    set(in_scalar_alone -fno-sanitize=$<IF:$<CXX_COMPILER_ID:GNU>,null$<COMMA>alignment$<COMMA>object-size,undefined>)
  endif()
  foreach(isa IN LISTS kvlane_isas)
    add_library(${prefix}_${isa} OBJECT ${ARGN})
    target_compile_definitions(${prefix}_${isa} PRIVATE KVLANE_ISA_NAME=${isa} KVLANE_ISA_HEADER="${isa}.hpp")
    target_include_directories(${prefix}_${isa} PRIVATE ${KVLANE_SIMD_DIR})
    target_compile_options(${prefix}_${isa} PRIVATE ${KVLANE_ISA_FLAGS_${isa}} ${optimisation}
      $<$<NOT:$<STREQUAL:${isa},scalar>>:${in_scalar_alone}> -fno-exceptions
      -Wall -Wextra
      $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>) # g++ 12: its own AVX-512 headers
    target_include_directories(${prefix}_${isa} SYSTEM PRIVATE ${KVLANE_XSIMD_INCLUDE_DIR})
    target_link_libraries(${prefix}_${isa} PRIVATE kvlane_build)
    set_target_properties(${prefix}_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endforeach()
endfunction()
