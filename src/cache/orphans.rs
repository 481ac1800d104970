//! Ends what a killed `pipe` left running.
//!
//! The kernel ends the process of a stage with its `pipe`, but not what that process had started in turn. It
//! works on for nobody: its outputs lie in a folder that will be removed. It is known by the lock of
//! its key, which all processes of a stage inherit.

use std::fs::File;

/// Ends all processes that hold the lock on this file; returns how many there were.
#[cfg(target_os = "linux")]
pub(super) fn end(file: &File) -> usize {
    use std::{fs, os::unix::fs::MetadataExt, path::Path};

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    let Ok(file) = file.metadata() else { return 0 };
    // Others that only wait for the lock have the file open as well.
    let holds = |process: &Path, descriptor: &fs::DirEntry| {
        let is_it = |open: fs::Metadata| (open.dev(), open.ino()) == (file.dev(), file.ino());
        let locks = || fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()));
        fs::metadata(descriptor.path()).is_ok_and(is_it) && locks().is_ok_and(|text| text.contains("FLOCK"))
    };
    let end = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        // A `pipe`, a worker and a launcher end on their own.
        if fs::read_link(entry.path().join("exe")).ok() == fs::read_link("/proc/self/exe").ok() {
            return None;
        }
        // Opened before it is looked at: the number may be given to another process meanwhile.
        let process = pidfd_open(Pid::from_raw(number)?, PidfdFlags::empty()).ok()?;
        let mut descriptors = fs::read_dir(entry.path().join("fd")).ok()?.filter_map(Result::ok);
        descriptors.any(|descriptor| holds(&entry.path(), &descriptor)).then_some(())?;
        pidfd_send_signal(process, Signal::KILL).ok()
    };
    fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok).filter_map(end).count()
}

/// Ends nothing: who holds a lock is not known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn end(_: &File) -> usize {
    0
}
