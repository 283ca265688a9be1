# The sources are those that this port lies in.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

# An adapter is built where its thread pool is found: required with its feature, not looked for without.
vcpkg_check_features(OUT_FEATURE_OPTIONS ADAPTERS
    FEATURES
        openmp CMAKE_REQUIRE_FIND_PACKAGE_OpenMP
        tbb CMAKE_REQUIRE_FIND_PACKAGE_TBB
    INVERTED_FEATURES
        openmp CMAKE_DISABLE_FIND_PACKAGE_OpenMP
        tbb CMAKE_DISABLE_FIND_PACKAGE_TBB
)
vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        ${ADAPTERS}
        -DKVLANE_TESTS=OFF
        -DKVLANE_BENCH=OFF
        -DKVLANE_EXAMPLES=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/kvlane)
vcpkg_fixup_pkgconfig()

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share" "${CURRENT_PACKAGES_DIR}/share/doc")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
