//! The threads that a model stage computes on.

use gemm_common::cache::CACHE_INFO;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{
    contract::{StageCx, StageError},
    gpt2::kernels::vector::Instructions,
};

/// A pool of as many threads as the stage may use; says in the stage's events what it is.
pub fn pool(cx: &StageCx<'_>) -> Result<ThreadPool, StageError> {
    if let Some(accelerator) = cx.accelerator()? {
        let message = format!("this kind does not compute on {} yet", accelerator.name());
        return Err(StageError::new(message).help("run with `--device cpu`"));
    }
    let threads = cx.threads();
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|err| StageError::new(format!("cannot start {threads} threads")).because(err))?;
    let noun = if threads == 1 { "thread" } else { "threads" };
    cx.computes_on(&format!("cpu ({}, {threads} {noun})", Instructions::best()));
    Ok(pool)
}

/// What of this machine decides the last bits of a result: device, instruction set, precision, and
/// the sizes of caches, by which `gemm` cuts its sums. The number of threads does not.
pub fn decides_bits() -> String {
    let caches = CACHE_INFO.map(|cache| format!("{}/{}", cache.cache_bytes, cache.associativity));
    format!("cpu, {}, f32, caches {}", Instructions::best(), caches.join(" "))
}
