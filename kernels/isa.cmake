# The isas of isa.inc that this target's processor family has: KVLANE_ISAS, and kvlane_isa_flags(<name> <out>).

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(family x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(family arm)
else()
  set(family none)
endif()

set(isa_inc ${CMAKE_CURRENT_LIST_DIR}/isa.inc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${isa_inc})
file(STRINGS ${isa_inc} isa_rows REGEX "^KVLANE_ISA\\(")
set(KVLANE_SIMD_DIR ${CMAKE_CURRENT_LIST_DIR}/simd)
set(KVLANE_ISAS "")
foreach(row IN LISTS isa_rows)
  if(NOT row MATCHES "^KVLANE_ISA\\(([a-z0-9_]+), ([a-z0-9]+), [^\"]*\"([^\"]*)\"\\)$")
    message(FATAL_ERROR "isa.inc: this row is not KVLANE_ISA(name, family, features, \"flags\"): ${row}")
  endif()
  set(name ${CMAKE_MATCH_1})
  set(row_family ${CMAKE_MATCH_2})
  separate_arguments(flags UNIX_COMMAND "${CMAKE_MATCH_3}")
  if(row_family STREQUAL "any" OR row_family STREQUAL family)
    list(APPEND KVLANE_ISAS ${name})
    set(KVLANE_ISA_FLAGS_${name} ${flags})
  endif()
endforeach()

# Compiles source once for every isa, as object libraries <prefix>_<isa>. They are optimised in every build type: an
# inline function that is left out of line could be linked into code that an older CPU runs. Contraction is off so that a
# row's bits do not depend on what the compiler fuses around it. Sanitizers take many minutes over what is unrolled here: for
# them it is optimised and described less, the scopes of its variables are not watched, and what the address sanitizer or the
# CPU would stop at is left to these; clang, the slower, looks for undefined behaviour in scalar alone.
function(kvlane_add_isa_objects prefix source)
  set(optimisation -O3)
  set(in_scalar_alone "")
  if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
    set(optimisation -O1 -g1 -fno-sanitize-address-use-after-scope)
    set(in_scalar_alone -fno-sanitize=$<IF:$<CXX_COMPILER_ID:GNU>,null$<COMMA>alignment$<COMMA>object-size,undefined>)
  endif()
  foreach(isa IN LISTS KVLANE_ISAS)
    add_library(${prefix}_${isa} OBJECT ${source})
    target_compile_definitions(${prefix}_${isa} PRIVATE KVLANE_ISA_NAME=${isa}
      KVLANE_ISA_HEADER="${KVLANE_SIMD_DIR}/${isa}.hpp")
    target_compile_options(${prefix}_${isa} PRIVATE ${KVLANE_ISA_FLAGS_${isa}} ${optimisation}
      $<$<NOT:$<STREQUAL:${isa},scalar>>:${in_scalar_alone}> -ffp-contract=off -fno-exceptions
      -Wall -Wextra
      $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>) # g++ 12: its own AVX-512 headers
    target_include_directories(${prefix}_${isa} SYSTEM PRIVATE ${KVLANE_XSIMD_INCLUDE_DIR})
    target_link_libraries(${prefix}_${isa} PRIVATE kvlane_build)
    set_target_properties(${prefix}_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  endforeach()
endfunction()
