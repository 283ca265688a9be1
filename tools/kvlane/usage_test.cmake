# How the command is called, and what it says when it is called otherwise.
#   cmake -DPROGRAM=kvlane -DVERSION=… -P usage_test.cmake
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)

prints("^kvlane ${VERSION}\n$" --version)
prints("  info ;  size ;  bench ;  check ;Exit status: 0" --help)
foreach(subcommand info size bench check)
  prints("Usage: kvlane ${subcommand}" ${subcommand} --help)
endforeach()
set(subcommands "it is one of info size bench check")
refuses("^kvlane: a subcommand is missing. ${subcommands}")
refuses("^kvlane: \"infos\" is no subcommand. ${subcommands}" infos)
refuses("--jsonn" info --jsonn)
set(ENV{KVLANE_ISA} nonsense)
refuses("^kvlane: KVLANE_ISA is \"nonsense\". this build on this CPU has " info)
refuses("^kvlane: KVLANE_ISA is \"nonsense\". this build on this CPU has " check)
