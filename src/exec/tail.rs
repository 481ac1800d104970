//! Reads files that a stage is still writing, or wrote last.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use pipe_stages::contract::{Event, read_events};

/// The place up to which an event file was read.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    read: u64,
}

impl Tail {
    /// Starts at the beginning of `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: 0 }
    }

    /// Hands on the events that were written since the last call.
    pub fn read(&mut self, events: &mut dyn FnMut(Event)) {
        let mut text = Vec::new();
        let copied = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut text)
        });
        if copied.is_ok() {
            let (found, length) = read_events(&text);
            self.read += length as u64;
            found.into_iter().for_each(events);
        }
    }
}

/// The last `bytes` of a file that a process printed to; empty if it cannot be read.
pub fn end_of(path: &Path, bytes: usize) -> String {
    let mut text = Vec::new();
    let _ = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes as u64)))?;
        file.read_to_end(&mut text)
    });
    String::from_utf8_lossy(&text).into_owned()
}
