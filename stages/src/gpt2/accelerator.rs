//! A device beside the processor that computes GPT-2.
//!
//! What links such a device is a program of its own: it hands [`worker`](crate::contract::worker)
//! the function that opens its device, and stages find it in their context.

use std::fmt;

use crate::contract::StageError;

/// A device that is open.
pub trait Accelerator: fmt::Debug {
    /// What a person calls it, such as `cuda (NVIDIA H100 80GB HBM3)`.
    fn name(&self) -> String;

    /// What of it decides the last bits of a result: kind, model, capability, driver.
    fn decides_bits(&self) -> String;
}

/// Opens the device that the process may use; the error says what is missing and what to do.
pub type OpenAccelerator = fn() -> Result<Box<dyn Accelerator>, StageError>;
