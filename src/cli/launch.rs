//! `pipe launch`: the first moments of a command; `pipe run` starts it, people do not.

use std::{ffi::OsString, process::ExitCode};

use crate::exec::{LAUNCH, become_command};

/// What shells return for a program that cannot be started.
const NOT_STARTED: u8 = 127;

/// Becomes the command that this process was started for; `None` if it is an ordinary `pipe`.
///
/// This comes before the command line is read, which takes as long as everything here.
pub fn launch(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.next()? != LAUNCH {
        return None;
    }
    let Err(err) = become_command(arguments);
    let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}")).unwrap_or_default();
    eprintln!("{err}{cause}");
    Some(ExitCode::from(NOT_STARTED))
}
