# Fails when the shared library exports anything but the C ABI, or does not carry its version.
#   cmake -DNM=… -DREADELF=… -DLIBRARY=… -DVERSION=… -P exports.cmake

execute_process(COMMAND ${NM} -D -P --defined-only ${LIBRARY} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+\n" lines "${symbols}")
if(NOT symbols MATCHES "kvl_attend ")
  message(FATAL_ERROR "${LIBRARY} does not export kvl_attend")
endif()
foreach(line IN LISTS lines)
  if(NOT line MATCHES "^kvl_[a-z0-9_]+ T ")
    message(FATAL_ERROR "${LIBRARY} exports what is not of the C ABI: ${line}")
  endif()
endforeach()

# Minor versions only add to the ABI.
string(REGEX MATCH "^[0-9]+" abi_version "${VERSION}")
execute_process(COMMAND ${READELF} -d ${LIBRARY} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
string(FIND "${dynamic}" "[libkvlane.so.${abi_version}]" has_soname)
string(FIND "${LIBRARY}" "libkvlane.so.${VERSION}" has_version)
if(has_soname EQUAL -1 OR has_version EQUAL -1)
  message(FATAL_ERROR "${LIBRARY} is not version ${VERSION} with the soname libkvlane.so.${abi_version}:\n${dynamic}")
endif()
