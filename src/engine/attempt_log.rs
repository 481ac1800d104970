//! What an attempt has said, read while it goes on or after its `pipe` was killed.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pipe_stages::contract::{Event, read_events};

/// The file that an attempt reports its events to, in its folder.
pub(super) const EVENTS: &str = "events.jsonl";
/// The file that takes what an attempt prints, in its folder.
pub(super) const OUTPUT: &str = "output";
/// How much of a file is read at a time, bytes.
const PART: u64 = 1 << 20;

/// The log of an attempt from its beginning: what it reported, then what it printed.
///
/// Both files stay open, so that their ends can be read after the attempt has ended and they were removed.
#[derive(Debug)]
pub struct AttemptLog {
    events: Growing,
    output: Growing,
    /// The beginning of an event whose end is not written yet.
    unread: Vec<u8>,
}

impl AttemptLog {
    /// The log of the attempt that has this `folder`, in which there may be nothing yet.
    pub fn new(folder: &Path) -> Self {
        let file = |name| Growing { path: folder.join(name), file: None };
        Self { events: file(EVENTS), output: file(OUTPUT), unread: Vec::new() }
    }

    /// A part of what was said since the last call; empty if that was all.
    pub fn read(&mut self) -> Vec<u8> {
        loop {
            let events = self.events.read();
            let is_all = events.is_empty();
            self.unread.extend(events);
            let (events, length) = read_events(&self.unread);
            self.unread.drain(..length);
            let mut said = events.into_iter().filter_map(log_line).collect::<String>().into_bytes();
            said.extend(self.output.read());
            if is_all || !said.is_empty() {
                return said;
            }
        }
    }
}

/// The line of a log that an event is, if it is one.
fn log_line(event: Event) -> Option<String> {
    match event {
        Event::Log { at, text } => Some(line(at, &text)),
        _ => None,
    }
}

/// A line of a log, `at` seconds after the beginning of the stage.
pub(super) fn line(at: f64, text: &str) -> String {
    format!("{at:9.3}  {text}\n")
}

/// A file that others write to.
#[derive(Debug)]
struct Growing {
    path: PathBuf,
    /// None until it is there.
    file: Option<File>,
}

impl Growing {
    /// What was written since the last call, up to [`PART`]; nothing of what cannot be read.
    fn read(&mut self) -> Vec<u8> {
        let mut part = Vec::new();
        self.file = self.file.take().or_else(|| File::open(&self.path).ok());
        if let Some(file) = &mut self.file {
            let _ = file.take(PART).read_to_end(&mut part);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn all_is_read_once_also_after_the_files_were_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = AttemptLog::new(folder.path());
        assert_eq!(log.read(), b"", "nothing is there yet");
        let create = |name| File::create(folder.path().join(name)).unwrap();
        let (mut events, mut output) = (create(EVENTS), create(OUTPUT));
        let begins = serde_json::to_string(&Event::Log { at: 1.5, text: "begins".into() }).unwrap();
        let (head, end) = begins.split_at(9);
        write!(events, "{}\n{head}", begins.replace("begins", "is read")).unwrap();
        output.write_all(&b"\xfe\n".repeat(PART as usize)).unwrap();
        let said =
            std::iter::from_fn(|| Some(log.read()).filter(|part| !part.is_empty())).collect::<Vec<_>>();
        assert_eq!(
            said.concat(),
            [b"    1.500  is read\n".to_vec(), b"\xfe\n".repeat(PART as usize)].concat()
        );
        writeln!(events, "{end}").unwrap();
        output.write_all(b"ends").unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(log.read(), b"    1.500  begins\nends");
        assert_eq!(log.read(), b"");
    }
}
