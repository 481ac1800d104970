//! Where a stage stood when it was cut off, so that the next attempt goes on from there.
//!
//! One file in the folder that survives a kill: a line of JSON (`format`, what the attempt was), the
//! stage's own bytes, and the BLAKE3 of all before it. It replaces the one before by a rename once it
//! is on the disk, so that there is a whole one or none. A file that is damaged, or of an attempt that
//! may have computed other bits, is left aside: then the stage starts over and its log says why.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::contract::{StageCx, StageError};

/// The entry `format` of a checkpoint.
const FORMAT: &str = "pipe.checkpoint.2";
/// Share of the time that writing checkpoints may take, one over this.
const SHARE: u32 = 50;
/// Bytes of a BLAKE3 hash.
const HASH: usize = 32;

/// The checkpoints of one attempt.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    cx: &'a StageCx<'a>,
    path: PathBuf,
    decides_bits: String,
    due: Instant,
}

/// What an attempt was: equal for two that compute the same bits on the way to the same result.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: String,
    /// The key: kind, version, parameters, seed, contents of the inputs.
    key: String,
    /// Device, instruction set, precision.
    decides_bits: String,
    /// BLAKE3 of the program.
    build: String,
}

impl<'a> Checkpoint<'a> {
    /// The checkpoints of the attempt behind `cx`; `decides_bits` is what of the machine must be equal.
    pub fn new(cx: &'a StageCx<'a>, decides_bits: String) -> Self {
        let path = cx.checkpoint().join("progress");
        Self { cx, path, decides_bits, due: Instant::now() + cx.checkpoint_every() }
    }

    /// What the attempt that was cut off wrote last, if this one can go on from there.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(&self.path).ok()?;
        match self.accept(&bytes) {
            Ok(from) => {
                bytes.truncate(bytes.len() - HASH);
                bytes.drain(..from);
                Some(bytes)
            }
            Err(reason) => {
                self.starts_over(reason);
                None
            }
        }
    }

    /// Where the stage's own bytes begin in a whole file of an equal attempt.
    fn accept(&self, bytes: &[u8]) -> Result<usize, &'static str> {
        let damaged = "the checkpoint is damaged";
        let (content, hash) = bytes.split_last_chunk::<HASH>().ok_or(damaged)?;
        let end = content.iter().position(|byte| *byte == b'\n').ok_or(damaged)?;
        if blake3::hash(content) != *hash {
            return Err(damaged);
        }
        let header: Header =
            serde_json::from_slice(&content[..end]).map_err(|_| "the checkpoint is of another version")?;
        let own = self.header().map_err(|_| "this program cannot be read to compare builds")?;
        if header.key != own.key {
            Err("the checkpoint is of another computation")
        } else if header.decides_bits != own.decides_bits {
            Err("the checkpoint was computed on another processor")
        } else if header != own {
            Err("the checkpoint is of another build of this program")
        } else {
            Ok(end + 1)
        }
    }

    fn header(&self) -> io::Result<Header> {
        let (key, decides_bits) = (self.cx.key().to_owned(), self.decides_bits.clone());
        Ok(Header { format: FORMAT.into(), key, decides_bits, build: build()? })
    }

    /// Says in the stage's log that an earlier attempt is of no use, and why.
    pub fn starts_over(&self, reason: &str) {
        self.cx.log(format!("starts over: {reason}"));
    }

    /// Says in the stage's log where it goes on, such as `review 120`.
    pub fn goes_on(&self, after: &str) {
        self.cx.log(format!("goes on after {after} of an attempt that was cut off"));
    }

    /// Whether it is time for another checkpoint.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Keeps what `content` writes as the place `at`, such as `review 120`; returns whether that worked.
    ///
    /// A stage goes on without a checkpoint where there cannot be one; its log says so.
    pub fn write(
        &mut self,
        at: &str,
        content: impl FnOnce(&mut dyn Write) -> Result<(), StageError>,
    ) -> bool {
        let started = Instant::now();
        let written = self.replace(content);
        if let Err(err) = &written {
            let causes: String = err.causes().iter().map(|cause| format!(": {cause}")).collect();
            self.cx.log(format!("no checkpoint after {at}: {err}{causes}"));
        }
        let every = self.cx.checkpoint_every();
        let rest = if every.is_zero() { Duration::ZERO } else { every.max(started.elapsed() * SHARE) };
        self.due = Instant::now() + rest;
        written.is_ok()
    }

    fn replace(
        &self,
        content: impl FnOnce(&mut dyn Write) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let failed = |err| StageError::io("write", &self.path, err);
        let new = self.path.with_extension("new");
        let file = File::create(&new).map_err(failed)?;
        let mut file =
            Hashing { file: BufWriter::with_capacity(1 << 20, file), hasher: blake3::Hasher::new() };
        let written = self
            .header()
            .and_then(|header| Ok(serde_json::to_writer(&mut file, &header)?))
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)
            .and_then(|()| content(&mut file))
            .and_then(|()| file.finish().and_then(|()| fs::rename(&new, &self.path)).map_err(failed))
            .and_then(|()| sync_folder(self.cx.checkpoint()).map_err(failed));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

/// Forces the names in `folder` to the disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The hash of the program that runs: another build may round otherwise.
fn build() -> io::Result<String> {
    static BUILD: OnceLock<String> = OnceLock::new();
    if let Some(build) = BUILD.get() {
        return Ok(build.clone());
    }
    // On Linux this is the program that runs, even if another one has taken its name since.
    let own = Path::new("/proc/self/exe");
    let program = if own.exists() { own.to_owned() } else { std::env::current_exe()? };
    let hash = blake3::Hasher::new().update_mmap_rayon(program)?.finalize().to_string();
    Ok(BUILD.get_or_init(|| hash).clone())
}

/// A file that ends with the hash of its content.
struct Hashing {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Hashing {
    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(self.hasher.finalize().as_bytes())?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
