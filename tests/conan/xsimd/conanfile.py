"""Stands for Conan's xsimd in a test without a network: this machine's headers, from the directory XSIMD_INCLUDE_DIR."""

import os

from conan import ConanFile
from conan.tools.files import copy


class XsimdConan(ConanFile):
    name = "xsimd"
    version = "8.1.0"
    package_type = "header-library"

    def package(self):
        copy(self, "xsimd/*", src=os.environ["XSIMD_INCLUDE_DIR"], dst=os.path.join(self.package_folder, "include"))

    def package_info(self):
        self.cpp_info.bindirs = self.cpp_info.libdirs = []
