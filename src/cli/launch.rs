//! `pipe launch`: starts the commands of a run; `pipe run` starts it, people do not.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use crate::exec::{LAUNCH, serve};

/// Starts commands if this process was started for that; `None` if it is an ordinary `pipe`.
pub fn launch(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.next()? != LAUNCH {
        return None;
    }
    let files = arguments.next().and_then(|word| word.to_str()?.parse().ok());
    Some(match serve(files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let _ = writeln!(io::stderr(), "cannot start commands: {err}");
            ExitCode::FAILURE
        }
    })
}
