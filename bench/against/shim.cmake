# kvlane_add_shim(<name>): what the target kvlane-bench is made of, as a shared object that offers shim.hpp's interface.

set(KVLANE_SHIM_DIR ${CMAKE_CURRENT_LIST_DIR})

function(kvlane_add_shim name)
  get_target_property(directory kvlane-bench SOURCE_DIR)
  get_target_property(sources kvlane-bench SOURCES)
  get_target_property(libraries kvlane-bench LINK_LIBRARIES)
  list(TRANSFORM sources PREPEND ${directory}/)
  add_library(${name} MODULE ${KVLANE_SHIM_DIR}/shim.cpp ${sources})
  target_compile_options(${name} PRIVATE "SHELL:-include ${KVLANE_SHIM_DIR}/stepped.hpp")
  target_include_directories(${name} SYSTEM PRIVATE $<TARGET_PROPERTY:kvlane-bench,INCLUDE_DIRECTORIES>)
  target_link_libraries(${name} PRIVATE ${libraries})
  # Of two versions in one process, none may find the other's symbols.
  target_link_options(${name} PRIVATE LINKER:--version-script=${KVLANE_SHIM_DIR}/shim.map)
  set_target_properties(${name} PROPERTIES PREFIX "" LINK_DEPENDS ${KVLANE_SHIM_DIR}/shim.map)
endfunction()
