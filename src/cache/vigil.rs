//! Sees whether anything below a folder was written since before it was listed.
//!
//! What a stage takes from outside must not change while it runs, or its result would be kept for other
//! bytes. The kernel tells of writes in folders that it was asked to watch (Linux `inotify`); without that,
//! every file would have to be looked at a second time. Only silence counts: after any event, or where
//! a write could go unseen, the files are looked at after all. Unseen are writes by other machines, those
//! under a name outside of the folder, and those through memory that was mapped before; the last
//! need not show in a stat either.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Watches some folders. Clones are the same watch.
#[derive(Debug, Clone)]
pub(super) struct Vigil(Option<Arc<Watch>>);

#[derive(Debug)]
struct Watch {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is watched there"))]
    events: OwnedFd,
    is_whole: AtomicBool,
}

impl Vigil {
    /// Begins without a folder.
    pub fn begin() -> Self {
        Self(system::begin().map(|events| Arc::new(Watch { events, is_whole: AtomicBool::new(true) })))
    }

    /// Watches the files right in `folder`. They must be looked at after this.
    pub fn watch(&self, folder: &Path) {
        if let Some(watch) = &self.0
            && watch.is_whole.load(Ordering::Relaxed)
            && !system::watch(&watch.events, folder)
        {
            self.give_up();
        }
    }

    /// Notes that a file can be written under a name that is not watched.
    pub fn give_up(&self) {
        if let Some(watch) = &self.0 {
            watch.is_whole.store(false, Ordering::Relaxed);
        }
    }

    /// Whether surely nothing was written since.
    pub fn saw_nothing(&self) -> bool {
        let Some(watch) = &self.0 else { return false };
        if watch.is_whole.load(Ordering::Relaxed) && system::is_silent(&watch.events) {
            return true;
        }
        // An event is told once: from now on silence says nothing.
        self.give_up();
        false
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::{
        os::fd::{AsFd, OwnedFd},
        path::Path,
    };

    use rustix::{
        fs::inotify::{CreateFlags, WatchFlags, add_watch, init},
        io::Errno,
    };

    pub fn begin() -> Option<OwnedFd> {
        init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()
    }

    pub fn watch(events: &OwnedFd, folder: &Path) -> bool {
        let writes = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::CLOSE_WRITE;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        add_watch(events.as_fd(), folder, writes | names | itself).is_ok()
    }

    pub fn is_silent(events: &OwnedFd) -> bool {
        rustix::io::read(events, &mut [0; 4096]) == Err(Errno::AGAIN)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::{os::fd::OwnedFd, path::Path};

    pub fn begin() -> Option<OwnedFd> {
        None
    }

    pub fn watch(_: &OwnedFd, _: &Path) -> bool {
        false
    }

    pub fn is_silent(_: &OwnedFd) -> bool {
        false
    }
}
