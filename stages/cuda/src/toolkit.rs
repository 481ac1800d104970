//! What the kernels were compiled with.

/// The CUDA version of the compiler, major and minor: a driver that supports an older one cannot load
/// the kernels.
pub const CUDA_VERSION: (u32, u32) =
    (number(env!("PIPE_CUDA_VERSION_MAJOR")), number(env!("PIPE_CUDA_VERSION_MINOR")));

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("the build script gives numbers"),
    }
}
