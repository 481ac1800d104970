//! Memory of the host that a GPU copies from and to by itself.

use cudarc::driver::{
    DriverError,
    sys::{self, CUdeviceptr, CUstream},
};
use rayon::prelude::*;

/// Bytes of the ring.
const BYTES: usize = 64 << 20;
/// Bytes that a thread copies at once: one thread copies more slowly than a GPU.
const PER_TASK: usize = 1 << 20;

/// A ring of page-locked memory: a copy through it need not wait for what the GPU does.
#[derive(Debug)]
pub struct Pinned {
    memory: *mut u8,
    /// Bytes in use since the GPU was last waited for.
    used: usize,
}

// SAFETY: the memory belongs to this value alone, and any thread of the process may use it.
#[allow(unsafe_code, reason = "a raw pointer to memory that only this value uses")]
unsafe impl Send for Pinned {}

#[allow(unsafe_code, reason = "the driver's functions take raw pointers")]
impl Pinned {
    /// Locks memory; the thread has the context of the GPU.
    pub fn new() -> Result<Self, DriverError> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: the driver writes one pointer to a place that is ours. What it points to is then
        // filled, so that all of it may be read.
        unsafe {
            sys::cuMemAllocHost_v2(&raw mut memory, BYTES).result()?;
            std::ptr::write_bytes(memory.cast::<u8>(), 0, BYTES);
        }
        Ok(Self { memory: memory.cast(), used: 0 })
    }

    /// Copies `bytes` to `to` on `stream`; they are read before this returns.
    ///
    /// # Safety
    ///
    /// `to` is the address of a living buffer of at least as many bytes.
    pub unsafe fn upload(
        &mut self,
        bytes: &[u8],
        to: CUdeviceptr,
        stream: CUstream,
    ) -> Result<(), DriverError> {
        for (chunk, to) in bytes.chunks(BYTES).zip((to..).step_by(BYTES)) {
            if self.used + chunk.len() > BYTES {
                self.wait(stream)?;
            }
            // SAFETY: the part of the ring behind `used` has room, and no copy uses it.
            unsafe {
                let place = self.memory.add(self.used);
                copy(chunk, std::slice::from_raw_parts_mut(place, chunk.len()));
                sys::cuMemcpyHtoDAsync_v2(to, place.cast(), chunk.len(), stream).result()?;
            }
            // The next copy begins on a line of its own.
            self.used = (self.used + chunk.len()).next_multiple_of(128).min(BYTES);
        }
        Ok(())
    }

    /// Copies from `from` once all on `stream` is done.
    ///
    /// # Safety
    ///
    /// `from` is the address of a living buffer of at least as many bytes.
    pub unsafe fn download(
        &mut self,
        from: CUdeviceptr,
        into: &mut [u8],
        stream: CUstream,
    ) -> Result<(), DriverError> {
        self.wait(stream)?;
        for (chunk, from) in into.chunks_mut(BYTES).zip((from..).step_by(BYTES)) {
            // SAFETY: nothing uses the ring after `wait`, and the chunk is no longer than it.
            unsafe {
                sys::cuMemcpyDtoHAsync_v2(self.memory.cast(), from, chunk.len(), stream).result()?;
                sys::cuStreamSynchronize(stream).result()?;
                copy(std::slice::from_raw_parts(self.memory, chunk.len()), chunk);
            }
        }
        Ok(())
    }

    /// Waits until the GPU has done what it was told; the ring is free then.
    fn wait(&mut self, stream: CUstream) -> Result<(), DriverError> {
        // SAFETY: the stream belongs to the open device.
        unsafe { sys::cuStreamSynchronize(stream) }.result()?;
        self.used = 0;
        Ok(())
    }
}

/// Copies `from` to `to`, which is as long, on all threads of the pool.
fn copy(from: &[u8], to: &mut [u8]) {
    let parts = from.par_chunks(PER_TASK).zip(to.par_chunks_mut(PER_TASK));
    parts.for_each(|(from, to)| to.copy_from_slice(from));
}

impl Drop for Pinned {
    #[allow(unsafe_code, reason = "the driver's function takes a raw pointer")]
    fn drop(&mut self) {
        // SAFETY: the memory came from the driver and nothing else refers to it. Where the driver is
        // already gone it has freed it, and its error means nothing.
        let _ = unsafe { sys::cuMemFreeHost(self.memory.cast()) };
    }
}
