//! Times what it is asked for on a GPU, as `stages/benches/timed.rs` does on the processor: the half
//! of `benches/on_gpu.py` that runs this project's code.
//!
//! Requests are lines on standard input, each answered by a line of JSON; `requests/mod.rs` says which.
//! Without the feature `cuda` it is a rehearsal: the kernels run on the processor in a small model,
//! and the figures mean nothing.

use std::{io::Write as _, process::ExitCode};

use pipe_cuda::profile::Clock;
use pipe_stages::contract::StageError;
use serde_json::json;

mod requests;

#[cfg(not(feature = "cuda"))]
#[allow(unused_imports, unused_macros, reason = "tests use all of it")]
#[path = "../tests/machines/mod.rs"]
mod machines;

use requests::Timed;

fn main() -> ExitCode {
    // On a thread of the pool, as in a stage.
    let served = rayon::scope(|_| open().and_then(serve));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{}", explained(&err));
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "cuda")]
fn open() -> Result<Timed<pipe_cuda::Gpu>, StageError> {
    let (info, gpu) = pipe_cuda::open_gpu()?;
    Timed::new(gpu, info.name, requests::FULL)
}

#[cfg(not(feature = "cuda"))]
fn open() -> Result<Timed<machines::emulated::Emulated>, StageError> {
    use machines::Tested as _;
    let all = machines::emulated::Emulated::all();
    let kernels = all.first().ok_or_else(|| StageError::new("the kernels need a compiler `c++`"))?;
    Timed::new(
        kernels.machine().clone(),
        "kernels on the processor, a small model".to_owned(),
        requests::SMALL,
    )
}

/// Answers every request; one that cannot be met is answered by what went wrong.
fn serve<M: Clock>(mut timed: Timed<M>) -> Result<(), StageError> {
    for request in std::io::stdin().lines().map_while(Result::ok) {
        let answer = timed.answer(&request).unwrap_or_else(|err| json!({ "error": explained(&err) }));
        println!("{answer}");
        std::io::stdout().flush().map_err(|err| StageError::new("nobody reads").because(err))?;
    }
    Ok(())
}

/// An error on one line, with its causes and what to do.
fn explained(err: &StageError) -> String {
    let causes: String = err.causes().iter().map(|cause| format!(": {cause}")).collect();
    let help = err.help_text().map(|help| format!("; {help}")).unwrap_or_default();
    format!("{err}{causes}{help}")
}
