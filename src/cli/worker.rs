//! `pipe worker`: the process of one stage.

use std::process::ExitCode;

use clap::Args;

use super::{Failure, Globals};

/// Runs one stage; `pipe run` starts it and speaks to it over standard input and output
#[derive(Debug, Args)]
#[command(hide = true)]
pub(super) struct Worker {}

impl Worker {
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "every verb has this face")]
    pub fn run(self, _: &Globals) -> Result<ExitCode, Failure> {
        Ok(pipe_stages::contract::worker(pipe_stages::kinds(), None))
    }
}
