//! The source of the kernels, compiled for the processor.
#![allow(unsafe_code, reason = "it calls the compiled kernels and reads what they read")]

use std::{
    ffi::CString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Instant,
};

use dfdx::prelude::{Backward, Cpu, CpuError, Gradients, Storage};
use half::{bf16, f16};
use libloading::Library;
use pipe_cuda::{
    launch::Kernels,
    machine::{Argument, BlasProduct, Fetched, Launch, Loss, Machine, Numbers, RawFactor, RawProduct},
    profile::Clock,
};
use pipe_stages::{
    contract::StageError,
    gpt2::{Failure, Precision},
};

use super::Tested;

type RunKernel = unsafe extern "C" fn(
    *const std::ffi::c_char,
    u32,
    u32,
    u32,
    u32,
    u32,
    *mut *mut std::ffi::c_void,
    i32,
) -> i32;

/// The kernels on the processor.
#[derive(Clone)]
pub struct Emulated {
    run: RunKernel,
    device: Cpu,
    /// Whether the threads of a block run backwards.
    reversed: bool,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulated {{ reversed: {} }}", self.reversed)
    }
}

impl Tested for Emulated {
    const SLACK: f32 = 1.0;

    /// With the threads of a block in both orders.
    fn all() -> Vec<Kernels<Self>> {
        let Some(library) = library() else {
            eprintln!("skipped: there is no C++ compiler `c++` to compile the kernels for the processor");
            return Vec::new();
        };
        // SAFETY: the library declares this function so.
        let run = unsafe { *library.get::<RunKernel>(b"run_kernel").unwrap() };
        [false, true].map(|reversed| Kernels::new(Emulated { run, device: Cpu::default(), reversed })).into()
    }
}

/// The compiled kernels; compiled once a process and kept until its end.
fn library() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    LIBRARY
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/host.cpp");
            let folder = tempfile::tempdir().unwrap();
            let file: PathBuf = folder.path().join("kernels.so");
            let compiled = Command::new("c++")
                .args(["-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
                .args([&file, &source])
                .output()
                .ok()?;
            assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
            // SAFETY: the library runs nothing when it is loaded.
            Some(unsafe { Library::new(file) }.unwrap())
        })
        .as_ref()
}

impl Machine for Emulated {
    type Device = Cpu;

    fn device(&self) -> &Cpu {
        &self.device
    }

    fn address(numbers: &Numbers<Self>) -> u64 {
        numbers.as_ptr().addr() as u64
    }

    fn zeros(&self, count: usize) -> Result<Numbers<Self>, CpuError> {
        Storage::<f32>::try_alloc_len(&self.device, count)
    }

    /// Bytes that are NaN in every format, so that reading what was not written shows.
    fn scratch(&self, count: usize) -> Result<Numbers<Self>, CpuError> {
        let mut numbers = self.zeros(count)?;
        numbers.fill(f32::from_bits(u32::MAX));
        Ok(numbers)
    }

    fn recycle(&self, _: Numbers<Self>) {}

    fn trim(&self) -> Result<(), CpuError> {
        Ok(())
    }

    /// In one of the two orders, so that both cases are tested.
    fn has_room(&self) -> Result<bool, CpuError> {
        Ok(!self.reversed)
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<(), CpuError> {
        let name = CString::new(launch.kernel).unwrap();
        let mut places: Vec<_> = arguments.iter().map(Argument::place).collect();
        let Launch { grid, threads, shared, .. } = *launch;
        assert!(grid.iter().all(|blocks| *blocks > 0) && grid[1] < 65536 && grid[2] < 65536);
        assert!(threads <= 1024 && shared <= 48 * 1024, "limits of a launch");
        // SAFETY: the caller passes the arguments that the kernel declares.
        let result = unsafe {
            (self.run)(
                name.as_ptr(),
                grid[0],
                grid[1],
                grid[2],
                threads,
                shared,
                places.as_mut_ptr(),
                self.reversed.into(),
            )
        };
        assert_eq!(result, 0, "the kernel `{}` exists", launch.kernel);
        Ok(())
    }

    unsafe fn multiply(&self, product: &RawProduct) -> Result<(), CpuError> {
        // As BLAS defines it, so that what a GPU's is told is tested, too.
        let RawProduct { alpha, format, beta, c, c_format, c_stride, .. } = *product;
        let BlasProduct { m, n, k, a, b } = product.along_columns();
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            // SAFETY: the caller's factors and result lie in living buffers.
            unsafe {
                let sum: f32 = (0..k).map(|i| number(a, format, row, i) * number(b, format, i, column)).sum();
                let (at, result) =
                    (column * c_stride + row, RawFactor { address: c, stride: c_stride, transposed: false });
                let before = if beta == 0.0 { 0.0 } else { beta * number(result, c_format, row, column) };
                let value = alpha * sum + before;
                match c_format {
                    Precision::F32 => *(c as *mut f32).add(at) = value,
                    Precision::F16 => *(c as *mut f16).add(at) = f16::from_f32(value),
                    Precision::Bf16 => *(c as *mut bf16).add(at) = bf16::from_f32(value),
                }
            }
        }
        Ok(())
    }

    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), CpuError> {
        // SAFETY: the caller's buffer has as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, into: &mut [u8]) -> Result<(), CpuError> {
        // SAFETY: the caller's buffer has as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    unsafe fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, CpuError> {
        let mut fetched = vec![0; bytes];
        // SAFETY: the caller promises it.
        unsafe { self.download(from, &mut fetched)? };
        Ok(Box::new(fetched))
    }

    fn backward(&self, loss: Loss<Self>) -> Result<Gradients<f32, Cpu>, CpuError> {
        loss.try_backward()
    }

    fn failure(trouble: CpuError) -> Failure {
        Failure::Other(StageError::new(format!("{trouble:?}")))
    }
}

/// All is done when it was started.
impl Clock for Emulated {
    type Mark = Instant;

    fn mark(&self) -> Result<Instant, CpuError> {
        Ok(Instant::now())
    }

    fn seconds(&self, from: &Instant, to: &Instant) -> Result<f64, CpuError> {
        Ok((*to - *from).as_secs_f64())
    }
}

/// The number at `row` and `column` of `op(factor)`, whose columns lie one after the other.
unsafe fn number(factor: RawFactor, format: Precision, row: usize, column: usize) -> f32 {
    let (row, column) = if factor.transposed { (column, row) } else { (row, column) };
    let at = column * factor.stride + row;
    // SAFETY: the caller's factor lies in a living buffer.
    unsafe {
        match format {
            Precision::F32 => *(factor.address as *const f32).add(at),
            Precision::F16 => (*(factor.address as *const f16).add(at)).to_f32(),
            Precision::Bf16 => (*(factor.address as *const bf16).add(at)).to_f32(),
        }
    }
}
