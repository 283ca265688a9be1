# Removes the maintainer scripts that CPack writes for packages with shared libraries: they call ldconfig, which Debian's policy
# leaves to the trigger. Run by CPack after it has made the packages.

set(unpacked ${CPACK_TEMPORARY_DIRECTORY}/unpacked)
foreach(package IN LISTS CPACK_PACKAGE_FILES)
  file(REMOVE_RECURSE ${unpacked})
  execute_process(COMMAND dpkg-deb --raw-extract ${package} ${unpacked} COMMAND_ERROR_IS_FATAL ANY)
  file(REMOVE ${unpacked}/DEBIAN/postinst ${unpacked}/DEBIAN/postrm)
  execute_process(COMMAND dpkg-deb --root-owner-group --build ${unpacked} ${package} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
