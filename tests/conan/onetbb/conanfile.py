"""Stands for Conan's onetbb in a test without a network: this machine's library."""

from conan import ConanFile


class OnetbbConan(ConanFile):
    name = "onetbb"
    version = "2021.8.0"
    package_type = "shared-library"

    def package_info(self):
        self.cpp_info.includedirs = self.cpp_info.bindirs = self.cpp_info.libdirs = []
        self.cpp_info.components["libtbb"].set_property("cmake_target_name", "TBB::tbb")
        self.cpp_info.components["libtbb"].system_libs = ["tbb"]
        self.cpp_info.components["libtbb"].includedirs = []
