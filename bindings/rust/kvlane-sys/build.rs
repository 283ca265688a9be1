//! Finds libkvlane: in the directory KVLANE_LIB_DIR, else by pkg-config, else builds this repository by CMake.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in ["KVLANE_LIB_DIR", "KVLANE_CMAKE", "PKG_CONFIG", "PKG_CONFIG_PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Some(directory) = env::var_os("KVLANE_LIB_DIR") {
        link(Path::new(&directory));
    } else if !link_by_pkg_config() {
        link(&build());
    }
}

/// Links the shared library in a directory or, if there is only a static one, that.
fn link(directory: &Path) {
    let shared = ["libkvlane.so", "libkvlane.dylib", "libkvlane.dll.a"].map(|name| directory.join(name));
    let archive = directory.join("libkvlane.a");
    println!("cargo:rustc-link-search=native={}", directory.display());
    if let Some(library) = shared.iter().find(|library| library.exists()) {
        println!("cargo:rustc-link-lib=dylib=kvlane");
        println!("cargo:rerun-if-changed={}", library.display());
    } else if archive.exists() {
        println!("cargo:rustc-link-lib=static=kvlane");
        println!("cargo:rerun-if-changed={}", archive.display());
        let is_apple = env::var("CARGO_CFG_TARGET_VENDOR").unwrap() == "apple";
        println!("cargo:rustc-link-lib=dylib={}", if is_apple { "c++" } else { "stdc++" });
    } else {
        panic!("{} is to be the directory of libkvlane; it has none", directory.display());
    }
}

/// Links an installed kvlane that has what these declarations have. False: pkg-config knows none.
fn link_by_pkg_config() -> bool {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_string());
    let wanted = format!("kvlane >= {}", env!("CARGO_PKG_VERSION"));
    let is_known = Command::new(&program).args(["--exists", &wanted]).status();
    if !is_known.map_or(false, |status| status.success()) {
        return false;
    }
    let output = Command::new(&program).args(["--variable=libdir", "kvlane"]).output().unwrap();
    link(Path::new(String::from_utf8_lossy(&output.stdout).trim()));
    true
}

/// Builds a static library from the sources that these bindings are part of. Returns its directory.
fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let binary = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("kvlane");
    for path in ["CMakeLists.txt", "cache", "cmake", "include", "kernels"] {
        println!("cargo:rerun-if-changed={}", source.join(path).display());
    }
    let more_arguments = env::var("KVLANE_CMAKE").unwrap_or_default();
    run(Command::new("cmake")
        .args([
            "-DBUILD_SHARED_LIBS=OFF",
            "-DKVLANE_TESTS=OFF",
            "-DKVLANE_BENCH=OFF",
            "-DKVLANE_EXAMPLES=OFF",
        ])
        .args(more_arguments.split_whitespace())
        .arg("-S")
        .arg(source)
        .arg("-B")
        .arg(&binary));
    let jobs = env::var("NUM_JOBS").unwrap();
    run(Command::new("cmake")
        .arg("--build")
        .arg(&binary)
        .args(["--config", "Release", "--target", "kvlane", "-j", &jobs]));
    binary
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?}: {status}"),
        Err(error) => {
            panic!("{command:?}: {error}; set KVLANE_LIB_DIR to the directory of a built libkvlane")
        }
    }
}
