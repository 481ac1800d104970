//! The first moments of a command's process.
//!
//! A process that forks copies the tables of its memory, and a `pipe` that knows ten thousand stages
//! pays milliseconds for each command. So commands are started by `posix_spawn`, which copies nothing
//! but cannot do all that a command needs: it starts `pipe launch`, which does the rest as the
//! process that the command then is.

use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{IntoRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use rustix::io::FdFlags;

use super::ExecError;

/// The word after the program's name that makes it a launcher.
pub const WORD: &str = "launch";
/// The lowest descriptor for the lock: scripts use those below themselves, as in `exec 3>log`.
const LOCK_FROM: i32 = 10;

/// A command that runs `words` and holds `lock`, and so do all its descendants.
///
/// The standard input is taken. On Linux the kernel kills the command when the thread that starts it ends.
pub(super) fn command(program: &Path, words: &[String], lock: OwnedFd) -> Command {
    let mut command = Command::new(program);
    command.arg(WORD).arg(std::process::id().to_string()).args(words).stdin(lock);
    command
}

/// Turns this process, started as [`command`] says, into the command; `arguments` follow [`WORD`].
///
/// # Errors
///
/// Returns only if that is not possible.
pub fn become_command(arguments: impl IntoIterator<Item = OsString>) -> Result<Infallible, ExecError> {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().unwrap_or_default();
    let program = arguments.next().unwrap_or_default();
    let start = || ExecError::io("start", Path::new(&program));
    keep_lock().map_err(start())?;
    end_with(&parent).map_err(start())?;
    Err(start()(Command::new(&program).args(arguments).exec()))
}

/// Moves the lock from the standard input to where a command leaves it alone.
fn keep_lock() -> io::Result<()> {
    let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), LOCK_FROM)?;
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())?;
    // Open until the last descendant has ended.
    let _ = lock.into_raw_fd();
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}

/// On Linux the kernel kills this process when its `parent` dies.
fn end_with(parent: &OsStr) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have died before the kernel was asked.
    let lives = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if lives.is_some_and(|lives| *parent == *lives) {
        Ok(())
    } else {
        Err(io::Error::other("the `pipe` that started it is gone"))
    }
}
