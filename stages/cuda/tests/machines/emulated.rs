//! The source of the kernels, compiled for the processor.
#![allow(unsafe_code, reason = "it calls the compiled kernels and reads what they read")]

use std::{
    ffi::{CString, OsStr},
    fmt,
    path::Path,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
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

/// What `host.h` declares.
struct Functions {
    run_kernel: RunKernel,
    know_buffer: unsafe extern "C" fn(*const std::ffi::c_void, usize),
    _library: Library,
}

type RunKernel =
    unsafe extern "C" fn(*const std::ffi::c_char, u32, u32, u32, u32, u32, *mut *mut std::ffi::c_void) -> i32;

/// The kernels on the processor.
#[derive(Clone)]
pub struct Emulated {
    functions: &'static Functions,
    device: Cpu,
    is_full: Arc<AtomicBool>,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emulated")
    }
}

impl Tested for Emulated {
    const SLACK: f32 = 1.0;

    fn all() -> Vec<Kernels<Self>> {
        let Some(functions) = functions() else {
            eprintln!("skipped: there is no C++ compiler `c++` to compile the kernels for the processor");
            return Vec::new();
        };
        let (device, is_full) = (Cpu::default(), Arc::default());
        vec![Kernels::new(Emulated { functions, device, is_full })]
    }
}

/// The compiled kernels; compiled once a process and kept until its end.
fn functions() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    FUNCTIONS
        .get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host");
            let folder = tempfile::tempdir().unwrap();
            let [kernels, file] = ["kernels.o", "kernels.so"].map(|name| folder.path().join(name));
            let compile = |arguments: &[&OsStr]| {
                let flags = ["-std=c++17", "-O2", "-fPIC", "-Wall", "-Werror", "-o"];
                let compiled = Command::new("c++").args(flags).args(arguments).output().ok()?;
                assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
                Some(())
            };
            let [checked, object, shared] = ["-fsanitize=thread", "-c", "-shared"].map(OsStr::new);
            let [of_kernels, host] = ["kernels.cpp", "host.cpp"].map(|name| source.join(name));
            compile(&[kernels.as_ref(), checked, object, of_kernels.as_ref()])?;
            compile(&[file.as_ref(), shared, host.as_ref(), kernels.as_ref()])?;
            // SAFETY: the library only sets a flag when it is loaded, and declares the functions so.
            unsafe {
                let library = Library::new(file).unwrap();
                Some(Functions {
                    run_kernel: *library.get(b"run_kernel").unwrap(),
                    know_buffer: *library.get(b"know_buffer").unwrap(),
                    _library: library,
                })
            }
        })
        .as_ref()
}

impl Machine for Emulated {
    type Device = Cpu;

    fn device(&self) -> &Cpu {
        &self.device
    }

    /// Kernels may use what they are given, and nothing else.
    fn address(numbers: &Numbers<Self>) -> u64 {
        let functions = functions().expect("a machine has them");
        // SAFETY: the library keeps the address, which is a number to it, and the length.
        unsafe { (functions.know_buffer)(numbers.as_ptr().cast(), size_of_val(&numbers[..])) };
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

    /// Once, so that both cases are tested.
    fn has_room(&self) -> Result<bool, CpuError> {
        Ok(!self.is_full.swap(true, Ordering::Relaxed))
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<(), CpuError> {
        let name = CString::new(launch.kernel).unwrap();
        let mut places: Vec<_> = arguments.iter().map(Argument::place).collect();
        let Launch { grid, threads, shared, .. } = *launch;
        assert!(grid.iter().all(|blocks| *blocks > 0) && grid[1] < 65536 && grid[2] < 65536);
        assert!(threads <= 1024 && shared <= 48 * 1024, "limits of a launch");
        // SAFETY: the caller passes the arguments that the kernel declares.
        let result = unsafe {
            (self.functions.run_kernel)(
                name.as_ptr(),
                grid[0],
                grid[1],
                grid[2],
                threads,
                shared,
                places.as_mut_ptr(),
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
