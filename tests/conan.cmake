# Lets Conan make a package of a library for the isa scalar alone, static and shared, and use it: packaging/conan/test_package
# builds and runs consumer/. The packages that the recipe requires are conan/'s, since no other can be had without a network.

cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/consumer.cmake)

set(ENV{CONAN_HOME} ${WORK_DIR}/home)
set(ENV{CC} ${CC})
set(ENV{CXX} ${CXX})
set(ENV{CMAKE_CXX_COMPILER_LAUNCHER} ${LAUNCHER})
set(ENV{XSIMD_INCLUDE_DIR} ${XSIMD_INCLUDE_DIR})

# create(RECIPE [Conan's arguments])
function(create recipe)
  run(${CONAN} create ${recipe} --no-remote --conf tools.cmake.cmaketoolchain:generator=${GENERATOR}
    --conf tools.cmake.cmake_layout:test_folder=${WORK_DIR}/test_package ${ARGN})
endfunction()

set(options -o kvlane/*:isas=scalar)
foreach(adapter IN LISTS COMPONENTS)
  list(APPEND options -o kvlane/*:with_${adapter}=True)
endforeach()
file(REMOVE_RECURSE ${WORK_DIR})
run(${CONAN} profile detect)
create(${CMAKE_CURRENT_LIST_DIR}/conan/xsimd)
create(${CMAKE_CURRENT_LIST_DIR}/conan/onetbb)
foreach(shared False True)
  create(${SOURCE_DIR}/packaging/conan ${options} -o kvlane/*:shared=${shared})
endforeach()
