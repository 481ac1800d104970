//! Events of the driver: when a GPU has done what it was told.

use cudarc::driver::{
    DriverError, result,
    sys::{CUevent, CUevent_flags::CU_EVENT_DEFAULT, cuEventSynchronize},
};
use dfdx::prelude::CudaError;

use crate::{gpu::Gpu, profile::Clock};

/// An event that was put behind work of a GPU.
#[derive(Debug)]
pub struct Event(CUevent);

#[allow(unsafe_code, reason = "the driver's functions take handles")]
impl Event {
    fn new(gpu: &Gpu) -> Result<Self, DriverError> {
        let stream = gpu.stream()?;
        let event = Self(result::event::create(CU_EVENT_DEFAULT)?);
        // SAFETY: the event was made just now, and the stream belongs to the open device.
        unsafe { result::event::record(event.0, stream) }?;
        Ok(event)
    }

    /// Waits until `self` has passed; seconds since `before` has.
    fn since(&self, before: &Self) -> Result<f64, DriverError> {
        // SAFETY: both events were put on the one stream of the GPU and live.
        let milliseconds = unsafe {
            cuEventSynchronize(self.0).result()?;
            result::event::elapsed(before.0, self.0)
        }?;
        Ok(f64::from(milliseconds) / 1000.0)
    }
}

impl Drop for Event {
    #[allow(unsafe_code, reason = "the driver's function takes a handle")]
    fn drop(&mut self) {
        // SAFETY: nothing else has the handle. Where the driver is already gone it has freed the
        // event, and its error means nothing.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl Clock for Gpu {
    type Mark = Event;

    fn mark(&self) -> Result<Event, CudaError> {
        Ok(Event::new(self)?)
    }

    fn seconds(&self, from: &Event, to: &Event) -> Result<f64, CudaError> {
        self.stream()?;
        Ok(to.since(from)?)
    }
}
