//! Finds libdlattn: the folder DLATTN_LIB_DIR, else pkg-config, else (feature `bundled`) builds the C sources with CMake.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for name in ["DLATTN_LIB_DIR", "DLATTN_STATIC", "DLATTN_BUILD_TYPE", "DLATTN_DLPACK_INCLUDE_DIR", "DOCS_RS"] {
        println!("cargo:rerun-if-env-changed={}", name);
    }
    if env::var_os("DOCS_RS").is_some() {
        return; // documentation needs no library
    }
    if let Some(folder) = env::var_os("DLATTN_LIB_DIR") {
        let kind = if env::var_os("DLATTN_STATIC").is_some() { "static=dlattn_static" } else { "dylib=dlattn" };
        return link(Path::new(&folder), kind);
    }
    match pkg_config::Config::new().atleast_version("0.1").probe("dlattn") {
        Ok(found) => {
            if let Some(folder) = found.link_paths.first() {
                println!("cargo:lib={}", folder.display());
            }
        }
        Err(_) if env::var_os("CARGO_FEATURE_BUNDLED").is_some() => bundled(),
        Err(error) => panic!(
            "libdlattn was not found: set DLATTN_LIB_DIR to its folder, or make pkg-config find dlattn.pc, \
             or enable the feature `bundled`\n{}",
            error
        ),
    }
}

fn link(folder: &Path, kind: &str) {
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib={}", kind);
    println!("cargo:lib={}", folder.display());
    if kind.starts_with("static") {
        for name in ["m", "pthread", "dl"] {
            println!("cargo:rustc-link-lib={}", name);
        }
    }
}

/// The C sources: `source/` in the packed crate, the repository otherwise.
fn source() -> PathBuf {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    [here.join("source"), here.join("../../..")]
        .iter()
        .find(|folder| folder.join("include/dlattn/dlattn.h").exists())
        .unwrap_or_else(|| panic!("no C sources beside {}", here.display()))
        .canonicalize()
        .expect("it exists")
}

fn bundled() {
    let source = source();
    let build = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("build");
    let kind = env::var("DLATTN_BUILD_TYPE").unwrap_or_else(|_| "Release".into());
    for part in ["CMakeLists.txt", "cmake", "include", "kernels", "src"] {
        println!("cargo:rerun-if-changed={}", source.join(part).display());
    }
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&build).arg(format!("-DCMAKE_BUILD_TYPE={}", kind));
    configure.arg("-DDLATTN_BUILD_TOOLS=OFF");
    let dlpack = env::var_os("DLATTN_DLPACK_INCLUDE_DIR").map(PathBuf::from);
    let packed = source.join("dlpack"); // the packed crate brings dlpack/dlpack.h along
    if let Some(folder) = dlpack.or_else(|| packed.exists().then(|| source.clone())) {
        configure.arg(format!("-DDLATTN_DLPACK_INCLUDE_DIR={}", folder.display()));
    }
    run(&mut configure);
    let jobs = env::var("NUM_JOBS").unwrap_or_else(|_| "1".into());
    run(Command::new("cmake").arg("--build").arg(&build).args(["--target", "dlattn_static", "--parallel", &jobs]));
    link(&build, "static=dlattn_static");
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{:?} could not be started: {}", command, error));
    assert!(status.success(), "{:?} failed", command);
}
