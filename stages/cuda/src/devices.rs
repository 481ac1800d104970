//! Which GPUs the driver shows this process.

use cudarc::driver::{
    DriverError,
    result::{self, device},
    sys::{self, CUdevice, CUdevice_attribute, CUresult},
};
use thiserror::Error;

/// A GPU, as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among those that this process sees, from 0; `CUDA_VISIBLE_DEVICES` decides which.
    pub index: usize,
    /// The model, such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Bytes of its memory.
    pub memory: usize,
    /// Compute capability: major and minor.
    pub capability: (u32, u32),
    /// Latest version of CUDA that the driver knows: major and minor.
    pub driver: (u32, u32),
}

/// Why there is no GPU to compute on.
#[derive(Debug, Error)]
pub enum DevicesError {
    /// The driver is older than the CUDA that this program was built with.
    #[error("the NVIDIA driver is too old for this program")]
    DriverTooOld,
    /// There is a driver, and no GPU that this process may use.
    #[error("the NVIDIA driver shows no GPU to this process")]
    NoDevice,
    /// The driver says no for another reason.
    #[error("the NVIDIA driver does not start: {0}")]
    Driver(String),
}

impl DevicesError {
    /// What the person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::DriverTooOld => "install an NVIDIA driver of version 580 or later",
            Self::NoDevice => "look at `nvidia-smi` and at the variable CUDA_VISIBLE_DEVICES",
            Self::Driver(_) => "look at `nvidia-smi`: after an update of the driver the machine must restart",
        }
    }
}

impl From<DriverError> for DevicesError {
    fn from(err: DriverError) -> Self {
        match err.0 {
            CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE => Self::NoDevice,
            CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => Self::DriverTooOld,
            other => Self::Driver(format!("{other:?}")),
        }
    }
}

/// The GPUs that this process sees, at least one.
///
/// A GPU of a capability below 8.0 is listed too; [`open`](crate::open) refuses it.
pub fn devices() -> Result<Vec<DeviceInfo>, DevicesError> {
    result::init()?;
    let count = device::get_count()?;
    let driver = driver_version()?;
    let devices: Vec<DeviceInfo> =
        (0..count).map(|index| describe(index, driver)).collect::<Result<_, _>>()?;
    if devices.is_empty() { Err(DevicesError::NoDevice) } else { Ok(devices) }
}

#[allow(unsafe_code, reason = "the driver fills a number")]
fn driver_version() -> Result<(u32, u32), DevicesError> {
    let mut version = 0;
    // SAFETY: the driver writes one number to a place that is ours.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    let version = u32::try_from(version).unwrap_or_default();
    Ok((version / 1000, version % 1000 / 10))
}

#[allow(unsafe_code, reason = "the driver fills numbers and a buffer of the length it is told")]
fn describe(index: i32, driver: (u32, u32)) -> Result<DeviceInfo, DevicesError> {
    const NAME: usize = 256;
    let device: CUdevice = device::get(index)?;
    let mut name = [0u8; NAME];
    // SAFETY: the device is one that the driver has just given, and the buffer has the stated length.
    let (memory, major, minor) = unsafe {
        sys::cuDeviceGetName(name.as_mut_ptr().cast(), NAME as i32, device).result()?;
        let attribute = |which: CUdevice_attribute| device::get_attribute(device, which);
        (
            device::total_mem(device)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        )
    };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
    let capability = (u32::try_from(major).unwrap_or_default(), u32::try_from(minor).unwrap_or_default());
    Ok(DeviceInfo {
        index: usize::try_from(index).unwrap_or_default(),
        name: String::from_utf8_lossy(&name[..end]).into_owned(),
        memory,
        capability,
        driver,
    })
}
