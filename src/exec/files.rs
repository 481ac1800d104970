//! How many files this process and its commands may have open.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Lets this process open as many files as it is allowed to: each stage that runs takes several. Returns how
/// many were usual before, where that was less.
pub(super) fn open_many() -> Option<u64> {
    static USUAL: OnceLock<Option<u64>> = OnceLock::new();
    *USUAL.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        let usual = limit.current.filter(|current| limit.maximum.is_none_or(|most| *current < most))?;
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok()?;
        Some(usual)
    })
}

/// Gives a command what is `usual`: some programs look at every descriptor that they could have.
pub(super) fn open_few(command: Pid, usual: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // It may have ended.
    let _ = prlimit(Some(command), Resource::Nofile, Rlimit { current: Some(usual), maximum });
}
