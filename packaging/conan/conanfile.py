"""Recipe for Conan 2 that packages the sources that it lies in.

    conan create packaging/conan --build=missing -o 'kvlane/*:shared=True'
"""

import os
import re

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.build import stdcpp_library
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir

OLDEST_COMPILERS = {"gcc": 12, "clang": 14}


class KvlaneConan(ConanFile):
    name = "kvlane"
    description = "Decode-time attention on CPUs"
    license = "Apache-2.0"
    topics = ("attention", "kv-cache", "llm", "inference", "simd")
    package_type = "library"
    settings = "os", "arch", "compiler", "build_type"
    options = {
        "shared": [True, False],
        "fPIC": [True, False],
        "isas": ["ANY"],  # KVLANE_ISAS, see docs/embedding.md
        "with_openmp": [True, False],
        "with_tbb": [True, False],
    }
    default_options = {"shared": False, "fPIC": True, "isas": "all", "with_openmp": False, "with_tbb": False}
    implements = ["auto_shared_fpic"]

    @property
    def _sources(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._sources, "include", "kvlane", "kvlane.h"))
        self.version = ".".join(re.findall(r"^#define KVL_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header, re.MULTILINE))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cache/*", "cmake/*", "include/*", "kernels/*", "packaging/deb/*"):
            copy(self, pattern, src=self._sources, dst=self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        self.requires("xsimd/[>=8.1 <14]")
        if self.options.with_tbb:
            self.requires("onetbb/[>=2021]", transitive_headers=True, transitive_libs=True)  # of kvlane/tbb.hpp

    def validate(self):
        compiler = str(self.settings.compiler)
        oldest = OLDEST_COMPILERS.get(compiler)
        if compiler == "msvc":
            raise ConanInvalidConfiguration("kvlane cannot be compiled by MSVC; use g++ or clang")
        if oldest and int(str(self.settings.compiler.version).split(".")[0]) < oldest:
            raise ConanInvalidConfiguration(
                f"{compiler} {self.settings.compiler.version} cannot compile kvlane; it needs {compiler} {oldest} or newer")
        if self.options.with_openmp and compiler not in OLDEST_COMPILERS:
            raise ConanInvalidConfiguration(f"with_openmp is True; {compiler} needs it False, gcc and clang allow both")

    def generate(self):
        toolchain = CMakeToolchain(self)
        variables = toolchain.cache_variables
        variables["KVLANE_TESTS"] = variables["KVLANE_BENCH"] = variables["KVLANE_EXAMPLES"] = False
        variables["CMAKE_DISABLE_FIND_PACKAGE_OpenMP"] = variables["CMAKE_DISABLE_FIND_PACKAGE_TBB"] = True  # see package_info
        variables["KVLANE_ISAS"] = str(self.options.isas)
        variables["KVLANE_XSIMD_INCLUDE_DIR"] = self.dependencies["xsimd"].cpp_info.includedir.replace("\\", "/")
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        CMake(self).install()
        for directory in ("cmake", "pkgconfig"):  # Conan writes both for each consumer
            rmdir(self, os.path.join(self.package_folder, "lib", directory))
        rmdir(self, os.path.join(self.package_folder, "share"))

    def package_info(self):
        library = self.cpp_info.components["kvlane"]
        library.libs = ["kvlane"]
        library.requires = ["xsimd::xsimd"]
        library.set_property("cmake_target_name", "kvlane::kvlane")
        library.set_property("pkg_config_name", "kvlane")
        if not self.options.shared:  # whose C++ library programs in C need too
            library.system_libs = [name for name in ("m", stdcpp_library(self)) if name]
        # The adapters of thread pools are headers; a component adds what they need linked.
        if self.options.with_openmp:
            openmp = self.cpp_info.components["openmp"]
            openmp.set_property("cmake_target_name", "kvlane::openmp")
            openmp.requires = ["kvlane"]
            openmp.cflags = openmp.cxxflags = openmp.sharedlinkflags = openmp.exelinkflags = ["-fopenmp"]
        if self.options.with_tbb:
            tbb = self.cpp_info.components["tbb"]
            tbb.set_property("cmake_target_name", "kvlane::tbb")
            tbb.requires = ["kvlane", "onetbb::libtbb"]
