//! Compiles the kernels with nvcc, for the feature `cuda`.
//!
//! nvcc is looked for under `CUDA_PATH`, `CUDA_HOME`, `/usr/local/cuda` and on `PATH`. One file holds
//! the machine code of every capability below, and PTX, which the driver of a newer GPU compiles: each
//! stage is a process, and would wait for that where the driver cannot keep what it has compiled.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Compute capabilities, without the point.
const CAPABILITIES: [&str; 4] = ["80", "86", "89", "90"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/kernels");
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    if !feature("CUDA") {
        return;
    }
    let image = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.fatbin");
    if feature("CHECK") {
        std::fs::write(&image, "").expect("the build folder can be written");
        tell_version("13.0");
        return;
    }
    println!("cargo:rerun-if-env-changed=CUDA_PATH");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    let nvcc = nvcc();
    let status = Command::new(&nvcc)
        .args(["-fatbin", "-O3", "-std=c++17", "-gencode=arch=compute_80,code=compute_80"])
        .args(CAPABILITIES.map(|it| format!("-gencode=arch=compute_{it},code=sm_{it}")))
        .arg("-o")
        .arg(&image)
        .arg("src/kernels/kernels.cu")
        .status()
        .unwrap_or_else(|err| {
            panic!("cannot start `{}`: {err}; set CUDA_PATH to a CUDA toolkit", nvcc.display())
        });
    assert!(status.success(), "nvcc did not compile src/kernels/kernels.cu");
    tell_version(&version(&nvcc));
}

/// Lets the program know which CUDA a driver has to support.
fn tell_version(version: &str) {
    let (major, minor) = version.split_once('.').expect("a version has two numbers");
    println!("cargo:rustc-env=PIPE_CUDA_VERSION_MAJOR={major}");
    println!("cargo:rustc-env=PIPE_CUDA_VERSION_MINOR={minor}");
}

/// The version of a compiler, from `Cuda compilation tools, release 13.0, V13.0.88`.
fn version(nvcc: &Path) -> String {
    let said = Command::new(nvcc).arg("--version").output().expect("it has just compiled");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let rest = text.split("release ").nth(1).unwrap_or_else(|| panic!("nvcc says `{text}`"));
    rest.split(',').next().unwrap_or(rest).trim().to_owned()
}

/// The compiler of the toolkit that is named or found, else the one on `PATH`.
fn nvcc() -> PathBuf {
    ["CUDA_PATH", "CUDA_HOME"]
        .iter()
        .filter_map(env::var_os)
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")])
        .map(|root: PathBuf| root.join("bin/nvcc"))
        .find(|nvcc: &PathBuf| Path::is_file(nvcc))
        .unwrap_or_else(|| PathBuf::from("nvcc"))
}
