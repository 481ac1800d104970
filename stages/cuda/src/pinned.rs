//! Memory of the host that a GPU copies from and to by itself.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    DriverError,
    sys::{self, CUdeviceptr, CUstream},
};
use rayon::prelude::*;

/// Bytes of the ring.
const BYTES: usize = 64 << 20;
/// Bytes that a thread copies at once: one thread copies more slowly than a GPU.
const PER_TASK: usize = 1 << 20;

/// Page-locked memory.
#[derive(Debug)]
struct Pages {
    memory: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone, and any thread of the process may use it.
#[allow(unsafe_code, reason = "a raw pointer to memory that only this value uses")]
unsafe impl Send for Pages {}

#[allow(unsafe_code, reason = "the driver's functions take raw pointers")]
impl Pages {
    /// Locks `bytes` of memory, at least one; the thread has the context of the GPU.
    fn new(bytes: usize) -> Result<Self, DriverError> {
        let mut memory = std::ptr::null_mut();
        // SAFETY: the driver writes one pointer to a place that is ours. What it points to is then
        // filled, so that all of it may be read.
        unsafe {
            sys::cuMemAllocHost_v2(&raw mut memory, bytes).result()?;
            std::ptr::write_bytes(memory.cast::<u8>(), 0, bytes);
        }
        Ok(Self { memory: memory.cast(), bytes })
    }
}

impl Drop for Pages {
    #[allow(unsafe_code, reason = "the driver's function takes a raw pointer")]
    fn drop(&mut self) {
        // SAFETY: the memory came from the driver and nothing else refers to it. Where the driver is
        // already gone it has freed it, and its error means nothing.
        let _ = unsafe { sys::cuMemFreeHost(self.memory.cast()) };
    }
}

/// A ring of page-locked memory: a copy through it need not wait for what the GPU does.
#[derive(Debug)]
pub struct Pinned {
    ring: Pages,
    /// Bytes in use since the GPU was last waited for.
    used: usize,
    /// What was fetched into and is not read any longer.
    free: Arc<Mutex<Vec<Pages>>>,
}

/// Bytes that a GPU has written to page-locked memory.
#[derive(Debug)]
pub struct FetchedPages {
    pages: Option<Pages>,
    bytes: usize,
    /// Where the pages go when they are read.
    home: Arc<Mutex<Vec<Pages>>>,
}

impl AsRef<[u8]> for FetchedPages {
    #[allow(unsafe_code, reason = "the memory is the driver's")]
    fn as_ref(&self) -> &[u8] {
        let pages = self.pages.as_ref().expect("they go at the end");
        // SAFETY: the memory is as long and was filled, and the GPU has finished its copy.
        unsafe { std::slice::from_raw_parts(pages.memory, self.bytes) }
    }
}

impl Drop for FetchedPages {
    fn drop(&mut self) {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).extend(self.pages.take());
    }
}

#[allow(unsafe_code, reason = "the driver's functions take raw pointers")]
impl Pinned {
    /// Locks memory; the thread has the context of the GPU.
    pub fn new() -> Result<Self, DriverError> {
        Ok(Self { ring: Pages::new(BYTES)?, used: 0, free: Arc::default() })
    }

    /// Copies `bytes` from `from` once all on `stream` is done, to memory that is read where it is.
    ///
    /// # Safety
    ///
    /// `from` is the address of a living buffer of at least as many bytes.
    pub unsafe fn fetch(
        &mut self,
        from: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<FetchedPages, DriverError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().position(|pages| pages.bytes >= bytes);
        let pages = match fitting {
            Some(at) => free.swap_remove(at),
            None => {
                free.clear(); // smaller than what is needed
                Pages::new(bytes.max(1))?
            }
        };
        // SAFETY: the pages are as long and nothing else refers to them; the copy is waited for.
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(pages.memory.cast(), from, bytes, stream).result()?;
            sys::cuStreamSynchronize(stream).result()?;
        }
        self.used = 0;
        Ok(FetchedPages { pages: Some(pages), bytes, home: Arc::clone(&self.free) })
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
                let place = self.ring.memory.add(self.used);
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
                sys::cuMemcpyDtoHAsync_v2(self.ring.memory.cast(), from, chunk.len(), stream).result()?;
                sys::cuStreamSynchronize(stream).result()?;
                copy(std::slice::from_raw_parts(self.ring.memory, chunk.len()), chunk);
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
