# Where the packages come from: installed, from a directory that the user names, or fetched when KVLANE_FETCH is ON.
# The header-only ones are taken by their include directory: Debian's xsimd 8.1 target links xtl, which it does not install.

include(FetchContent)

# Sets <variable> to the directory that holds <header>.
function(kvlane_find_headers variable header package repository tag)
  find_path(${variable} ${header} PATH_SUFFIXES include)
  if(NOT ${variable} AND KVLANE_FETCH)
    FetchContent_Declare(${package} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW ON)
    FetchContent_GetProperties(${package})
    if(NOT ${package}_POPULATED)
      FetchContent_Populate(${package})
    endif()
    find_path(${variable} ${header} PATHS ${${package}_SOURCE_DIR}/include ${${package}_SOURCE_DIR} NO_DEFAULT_PATH)
  endif()
  if(NOT ${variable})
    message(FATAL_ERROR "${package} is missing: install it (Debian, Ubuntu: lib${package}-dev or ${package}-dev), name the "
      "directory of ${header} with -D${variable}=DIR, or let CMake fetch it with -DKVLANE_FETCH=ON")
  endif()
endfunction()

macro(kvlane_find_benchmark)
  find_package(benchmark QUIET)
  if(NOT benchmark_FOUND AND KVLANE_FETCH)
    set(BENCHMARK_ENABLE_TESTING OFF)
    FetchContent_Declare(benchmark GIT_REPOSITORY https://github.com/google/benchmark GIT_TAG v1.9.1 GIT_SHALLOW ON)
    FetchContent_MakeAvailable(benchmark)
  elseif(NOT benchmark_FOUND)
    message(FATAL_ERROR "benchmark is missing: install it (Debian, Ubuntu: libbenchmark-dev), name its directory with "
      "-Dbenchmark_DIR=DIR, let CMake fetch it with -DKVLANE_FETCH=ON, or leave the benchmarks out with -DKVLANE_BENCH=OFF")
  endif()
endmacro()

kvlane_find_headers(KVLANE_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp xsimd https://github.com/xtensor-stack/xsimd 13.2.0)
if(KVLANE_TESTS)
  kvlane_find_headers(KVLANE_DOCTEST_INCLUDE_DIR doctest/doctest.h doctest https://github.com/doctest/doctest v2.4.11)
endif()
if(KVLANE_BENCH OR KVLANE_EXAMPLES)
  kvlane_find_headers(KVLANE_CLI11_INCLUDE_DIR CLI/CLI.hpp cli11 https://github.com/CLIUtils/CLI11 v2.4.2)
  kvlane_find_headers(KVLANE_JSON_INCLUDE_DIR nlohmann/json.hpp nlohmann-json3 https://github.com/nlohmann/json v3.11.3)
endif()
if(KVLANE_BENCH)
  kvlane_find_benchmark()
endif()
