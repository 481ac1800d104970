//! A GPU as a [`Machine`]: `dfdx`'s device, our kernels, and cuBLAS.

use std::{
    collections::BTreeMap,
    ffi::{CString, c_int, c_void},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::{
    cublas::{
        CudaBlas,
        result::{CublasError, gemm_ex},
        sys::{
            cublasComputeType_t::CUBLAS_COMPUTE_32F,
            cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            cublasGetVersion_v2,
            cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
            cublasOperation_t::{self, CUBLAS_OP_N, CUBLAS_OP_T},
            cublasSetMathMode,
            cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED,
            cudaDataType_t::{self, CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F},
        },
    },
    driver::{
        CudaDevice, DevicePtr, DriverError, result,
        sys::{CUfunction, CUresult::CUDA_ERROR_OUT_OF_MEMORY, CUstream},
    },
};
use dfdx::prelude::{Backward, Cache, Cuda, CudaError, Gradients, Storage};
use pipe_stages::{
    contract::StageError,
    gpt2::{Failure, Precision},
};

use crate::{
    machine::{
        Argument, BlasProduct, Fetched, KERNELS, Launch, Loss, Machine, Numbers, RawFactor, RawProduct,
        size_class,
    },
    pinned::Pinned,
};

/// The kernels, as the build compiled them.
static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));

/// Bytes at an address from which the driver can read words.
#[repr(C, align(16))]
struct Aligned<B: ?Sized>(B);

/// One GPU, open.
#[derive(Clone)]
pub struct Gpu(Arc<Open>);

struct Open {
    tensors: Cuda,
    device: Arc<CudaDevice>,
    blas: CudaBlas,
    kernels: BTreeMap<&'static str, CUfunction>,
    pinned: Mutex<Pinned>,
    /// Buffers to use again without filling them with zeros, by their sizes.
    kept: Mutex<BTreeMap<usize, Vec<Numbers<Gpu>>>>,
}

// SAFETY: handles of the driver and of cuBLAS may be used from any thread that has the context, and
// every function below takes it first; what is written to stands behind a mutex. `dfdx` itself locks
// its cache, and its second stream, the one part that is not marked so, is never used here.
#[allow(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Send for Open {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "handles of the driver are pointers")]
unsafe impl Sync for Open {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu {}", self.0.device.ordinal())
    }
}

impl Open {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Numbers<Gpu>>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the driver back what is kept for later.
    fn empty(&self) -> Result<(), CudaError> {
        self.kept().clear(); // into the cache of `dfdx`
        self.tensors.try_empty_cache()
    }
}

impl Gpu {
    /// Opens the GPU of this number, which is one of [`devices`](crate::devices).
    ///
    /// The cache of allocations is on: the same sizes come again batch after batch.
    pub fn open(index: usize) -> Result<Self, CudaError> {
        let tensors = Cuda::try_build(index, 0)?;
        tensors.try_enable_cache()?;
        let device = Storage::<f32>::try_alloc_len(&tensors, 1)?.device();
        let (blas, kernels) = (open_blas(&device)?, load_kernels()?);
        let pinned = Mutex::new(Pinned::new()?);
        Ok(Self(Arc::new(Open { tensors, device, blas, kernels, pinned, kept: Mutex::default() })))
    }

    /// What all its work is put on; the calling thread has the context of the GPU then.
    pub(crate) fn stream(&self) -> Result<CUstream, DriverError> {
        self.0.device.bind_to_thread()?;
        Ok(*self.0.device.cu_stream())
    }

    /// Free and all bytes of its memory.
    pub fn memory(&self) -> Result<(usize, usize), DriverError> {
        self.0.device.bind_to_thread()?;
        result::mem_get_info()
    }
}

impl Gpu {
    /// The version of cuBLAS that was found, such as 130001; 0 where it does not say.
    #[allow(unsafe_code, reason = "cuBLAS fills a number")]
    pub fn blas_version(&self) -> i32 {
        let mut version = 0;
        // SAFETY: the handle is open, and cuBLAS writes one number to a place that is ours.
        let status = unsafe { cublasGetVersion_v2(*self.0.blas.handle(), &raw mut version) };
        if status.result().is_ok() { version } else { 0 }
    }
}

/// cuBLAS, with sums in f32 also where it adds up parts of a product in 16 bits.
#[allow(unsafe_code, reason = "cuBLAS takes its handle")]
fn open_blas(device: &Arc<CudaDevice>) -> Result<CudaBlas, CublasError> {
    let blas = CudaBlas::new(Arc::clone(device))?;
    // SAFETY: the handle is open.
    unsafe { cublasSetMathMode(*blas.handle(), CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) }
        .result()?;
    Ok(blas)
}

/// Gives the driver the kernels, of which it takes those for the GPU at hand; the thread has its context.
#[allow(unsafe_code, reason = "the driver's functions take raw pointers")]
fn load_kernels() -> Result<BTreeMap<&'static str, CUfunction>, DriverError> {
    // SAFETY: the image is what nvcc made, whose header tells its length. The module is never unloaded.
    let module = unsafe { result::module::load_data(IMAGE.0.as_ptr().cast()) }?;
    KERNELS
        .iter()
        .map(|name| {
            let text = CString::new(*name).expect("names are plain");
            // SAFETY: the module is loaded.
            unsafe { result::module::get_function(module, text) }.map(|kernel| (*name, kernel))
        })
        .collect()
}

#[allow(unsafe_code, reason = "the driver and cuBLAS take addresses on the device")]
impl Machine for Gpu {
    type Device = Cuda;

    fn device(&self) -> &Cuda {
        &self.0.tensors
    }

    fn address(numbers: &Numbers<Self>) -> u64 {
        *numbers.device_ptr()
    }

    fn zeros(&self, count: usize) -> Result<Numbers<Self>, CudaError> {
        let count = size_class(count);
        let allocate = || Storage::<f32>::try_alloc_len(&self.0.tensors, count);
        match allocate() {
            Err(trouble) if is_out_of_memory(&trouble) => {
                self.0.empty()?;
                self.0.device.synchronize()?;
                allocate()
            }
            result => result,
        }
    }

    fn scratch(&self, count: usize) -> Result<Numbers<Self>, CudaError> {
        // Kernels run in order, so that whatever used the buffer before is done with it.
        let kept = self.0.kept().get_mut(&size_class(count)).and_then(Vec::pop);
        kept.map_or_else(|| self.zeros(count), Ok)
    }

    fn recycle(&self, numbers: Numbers<Self>) {
        let count = Storage::<f32>::len(&self.0.tensors, &numbers);
        self.0.kept().entry(count).or_default().push(numbers);
    }

    fn trim(&self) -> Result<(), CudaError> {
        let (free, all) = self.memory()?;
        if free < all / 4 {
            self.0.empty()?;
        }
        Ok(())
    }

    fn has_room(&self) -> Result<bool, CudaError> {
        let (free, all) = self.memory()?;
        Ok(free > all / 2)
    }

    unsafe fn launch(&self, launch: &Launch, arguments: &[Argument]) -> Result<(), CudaError> {
        let kernel = *self.0.kernels.get(launch.kernel).expect("every kernel was loaded");
        let mut places: Vec<*mut c_void> = arguments.iter().map(Argument::place).collect();
        let Launch { grid: [x, y, z], threads, shared, .. } = *launch;
        let stream = self.stream()?;
        // SAFETY: the caller passes what the kernel declares.
        unsafe { result::launch_kernel(kernel, (x, y, z), (threads, 1, 1), shared, stream, &mut places) }?;
        Ok(())
    }

    unsafe fn multiply(&self, product: &RawProduct) -> Result<(), CudaError> {
        let RawProduct { alpha, format, beta, c, c_format, c_stride, .. } = *product;
        let (BlasProduct { m, n, k, a, b }, format) = (product.along_columns(), data_type(format));
        self.0.device.bind_to_thread()?;
        // SAFETY: factors and result lie in their buffers, which the caller has checked.
        unsafe {
            gemm_ex(
                *self.0.blas.handle(),
                operation(a),
                operation(b),
                number(m),
                number(n),
                number(k),
                (&raw const alpha).cast(),
                a.address as *const c_void,
                format,
                number(a.stride),
                b.address as *const c_void,
                format,
                number(b.stride),
                (&raw const beta).cast(),
                c as *mut c_void,
                data_type(c_format),
                number(c_stride),
                CUBLAS_COMPUTE_32F,
                CUBLAS_GEMM_DFALT,
            )
        }?;
        Ok(())
    }

    unsafe fn upload(&self, bytes: &[u8], to: u64) -> Result<(), CudaError> {
        let stream = self.stream()?;
        let mut pinned = self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's buffer has as many bytes.
        unsafe { pinned.upload(bytes, to, stream) }?;
        Ok(())
    }

    unsafe fn download(&self, from: u64, into: &mut [u8]) -> Result<(), CudaError> {
        let stream = self.stream()?;
        let mut pinned = self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's buffer has as many bytes.
        unsafe { pinned.download(from, into, stream) }?;
        Ok(())
    }

    unsafe fn fetch(&self, from: u64, bytes: usize) -> Result<Fetched, CudaError> {
        let stream = self.stream()?;
        let mut pinned = self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's buffer has as many bytes.
        Ok(Box::new(unsafe { pinned.fetch(from, bytes, stream) }?))
    }

    fn backward(&self, loss: Loss<Self>) -> Result<Gradients<f32, Cuda>, CudaError> {
        loss.try_backward()
    }

    fn failure(trouble: CudaError) -> Failure {
        if is_out_of_memory(&trouble) {
            return Failure::OutOfMemory;
        }
        let message = match &trouble {
            CudaError::Driver(DriverError(code)) => format!("the GPU reports {code:?}"),
            CudaError::Blas(CublasError(code)) => format!("cuBLAS reports {code:?}"),
            CudaError::Cpu(err) => format!("the host cannot hold a tensor: {err:?}"),
        };
        Failure::Other(StageError::new(message).help("run it again, or with `--device cpu`"))
    }
}

fn is_out_of_memory(trouble: &CudaError) -> bool {
    match trouble {
        CudaError::Driver(DriverError(code)) => *code == CUDA_ERROR_OUT_OF_MEMORY,
        CudaError::Blas(CublasError(code)) => *code == CUBLAS_STATUS_ALLOC_FAILED,
        CudaError::Cpu(_) => false,
    }
}

fn data_type(format: Precision) -> cudaDataType_t {
    match format {
        Precision::F32 => CUDA_R_32F,
        Precision::F16 => CUDA_R_16F,
        Precision::Bf16 => CUDA_R_16BF,
    }
}

fn operation(factor: RawFactor) -> cublasOperation_t {
    if factor.transposed { CUBLAS_OP_T } else { CUBLAS_OP_N }
}

/// As cuBLAS counts.
fn number(count: usize) -> c_int {
    c_int::try_from(count).expect("batches are cut so that counts fit 31 bits")
}
