//! A file from the web that arrives whole or not at all.
//!
//! Bytes are collected in a folder that survives a kill, beside the address they came from:
//! the next attempt asks only for the rest. Whatever a server answers, only a file with the
//! wanted hash reaches its destination.
//!
//! Answer                         | What is done
//! -------------------------------|-------------------------------------------
//! 206 that starts where we ended | the rest is added
//! 200, or 206 from elsewhere     | start over
//! 416                            | whole already if the sizes agree, else start over
//! 408, 429, 5xx, broken, short   | try again, after 1, 2, 4, … times the backoff
//! any other                      | fail at once

use std::{
    error::Error,
    fmt::{Display, Write as _},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    thread,
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

use crate::contract::{StageCx, StageError};

/// The bytes that have arrived.
const PARTIAL: &str = "partial";
/// The address they came from.
const ORIGIN: &str = "partial.url";
/// The longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// What to download and how patiently.
#[derive(Debug, Clone)]
pub struct Download {
    /// Address, `http://` or `https://`.
    pub url: String,
    /// SHA-256 of the file, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// How many tries that bring nothing new follow the first before the download fails.
    pub retries: u32,
    /// How long to wait for a connection, and for each next byte.
    pub timeout: Duration,
    /// The wait before the first retry; it doubles with each further one.
    pub backoff: Duration,
}

/// Who hears how a download goes.
pub trait Listener {
    /// `done` bytes of `total`, where known, have arrived.
    fn progress(&self, done: u64, total: Option<u64>);
    /// Something worth a line in a log.
    fn log(&self, line: &dyn Display);
}

impl Listener for &mut StageCx<'_> {
    fn progress(&self, done: u64, total: Option<u64>) {
        StageCx::progress(self, done, total, "bytes");
    }

    fn log(&self, line: &dyn Display) {
        StageCx::log(self, line);
    }
}

/// Why one try did not bring the whole file.
enum Broken {
    /// Another try may do better.
    ForNow(Box<dyn Error + Send + Sync>),
    /// No other try will.
    ForGood(StageError),
}

impl Download {
    /// Downloads the file to `destination`, collecting its bytes in `folder`.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses, and when the file has another hash; then
    /// nothing is kept. After a broken connection the bytes stay in `folder`.
    pub fn fetch(
        &self,
        folder: &Path,
        destination: &Path,
        listener: &impl Listener,
    ) -> Result<(), StageError> {
        let (partial, origin) = (folder.join(PARTIAL), folder.join(ORIGIN));
        if !fs::read(&origin).is_ok_and(|url| url == self.url.as_bytes()) {
            fs::write(&partial, []).map_err(|err| StageError::io("create", &partial, err))?;
            fs::write(&origin, &self.url).map_err(|err| StageError::io("write", &origin, err))?;
        }
        let mut resumed = size(&partial)? > 0;
        loop {
            self.collect(&partial, listener)?;
            let found = sha256(&partial)?;
            if found == self.sha256 {
                return hand_over(&partial, destination);
            }
            fs::remove_file(&partial).map_err(|err| StageError::io("remove", &partial, err))?;
            if !resumed {
                let message = format!("`{}` has sha256 `{found}`, wanted `{}`", self.url, self.sha256);
                return Err(StageError::new(message)
                    .help("nothing was kept; correct `sha256` if this is the file you want"));
            }
            listener.log(&format!("what was resumed has sha256 {found}, which is not wanted: starting over"));
            resumed = false;
        }
    }

    /// Makes `partial` whole, with as many tries as that takes.
    fn collect(&self, partial: &Path, listener: &impl Listener) -> Result<(), StageError> {
        let agent = self.agent();
        let (mut furthest, mut in_vain) = (size(partial)?, 0);
        loop {
            let reason = match self.attempt(&agent, partial, listener) {
                Ok(()) => return Ok(()),
                Err(Broken::ForGood(err)) => return Err(err),
                Err(Broken::ForNow(reason)) => reason,
            };
            let arrived = size(partial)?;
            if arrived > furthest {
                (furthest, in_vain) = (arrived, 0);
            }
            if in_vain == self.retries {
                let tries = if in_vain == 0 { "1 try".into() } else { format!("{} tries", in_vain + 1) };
                return Err(StageError::new(format!("cannot download `{}` ({tries})", self.url))
                    .because(reason)
                    .help(
                        "check the address and the network; a file that is already on this machine \
                         can be an input instead: `in: { archive: { file: PATH } }`",
                    ));
            }
            let wait = LONGEST_BACKOFF.min(self.backoff.saturating_mul(1 << in_vain.min(16)));
            listener
                .log(&format!("{reason} after {arrived} bytes: trying again in {} s", wait.as_secs_f32()));
            thread::sleep(wait);
            in_vain += 1;
        }
    }

    fn agent(&self) -> Agent {
        Agent::config_builder()
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_resolve(Some(self.timeout))
            .timeout_connect(Some(self.timeout))
            .timeout_per_read(Some(self.timeout))
            .timeout_per_write(Some(self.timeout))
            .build()
            .into()
    }

    /// Asks for what `partial` lacks and adds it.
    fn attempt(&self, agent: &Agent, partial: &Path, listener: &impl Listener) -> Result<(), Broken> {
        let start = size(partial).map_err(Broken::ForGood)?;
        let mut request = agent.get(&self.url);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let mut response = request.call().map_err(|err| match err {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Broken::ForGood(StageError::new(format!("`{}` is no address", self.url)).because(err))
            }
            err => Broken::ForNow(err.into()),
        })?;
        let status = response.status();
        let (range_start, range_total) = content_range(&response);
        let (start, total) = match status {
            StatusCode::OK => (0, response.body().content_length()),
            StatusCode::PARTIAL_CONTENT if range_start == Some(start) => (start, range_total),
            StatusCode::RANGE_NOT_SATISFIABLE if range_total == Some(start) => return Ok(()),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                write_from(partial, 0).map_err(Broken::ForGood)?;
                return Err(Broken::ForNow(format!("the server answered another part ({status})").into()));
            }
            status if is_passing(status) => {
                return Err(Broken::ForNow(format!("the server answered {status}").into()));
            }
            status => {
                let message = format!("cannot download `{}`: the server answered {status}", self.url);
                return Err(Broken::ForGood(StageError::new(message).help("check the address")));
            }
        };
        let mut file = write_from(partial, start).map_err(Broken::ForGood)?;
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let (mut done, mut buffer) = (start, vec![0; 1 << 16]);
        listener.progress(done, total);
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => return Err(Broken::ForNow(err.into())),
            };
            file.write_all(&buffer[..count])
                .map_err(|err| Broken::ForGood(StageError::io("write", partial, err)))?;
            done += count as u64;
            listener.progress(done, total);
        }
        match total {
            Some(total) if done < total => {
                Err(Broken::ForNow(format!("the connection ended at {done} of {total} bytes").into()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a server that answers so may answer otherwise a little later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// Start and total of `content-range: bytes 5-9/10` or `bytes */10`, where given.
fn content_range(response: &Response<Body>) -> (Option<u64>, Option<u64>) {
    let value = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let parts = value.and_then(|value| value.strip_prefix("bytes ")?.split_once('/'));
    let Some((range, total)) = parts else { return (None, None) };
    let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
    (start, total.parse().ok())
}

/// Opens `path` to go on after its first `start` bytes; what follows them is dropped.
fn write_from(path: &Path, start: u64) -> Result<File, StageError> {
    let open = || {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(start)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(start))?;
        Ok(file)
    };
    open().map_err(|err| StageError::io("write", path, err))
}

fn size(path: &Path) -> Result<u64, StageError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(err) => Err(StageError::io("read", path, err)),
    }
}

fn sha256(path: &Path) -> Result<String, StageError> {
    let hash = || {
        let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok(hexadecimal(&hasher.finalize()))
    };
    hash().map_err(|err| StageError::io("read", path, err))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Moves `partial` to `destination`, which may lie on another file system.
fn hand_over(partial: &Path, destination: &Path) -> Result<(), StageError> {
    fs::rename(partial, destination)
        .or_else(|_| fs::copy(partial, destination).and_then(|_| fs::remove_file(partial)))
        .map_err(|err| StageError::io("create", destination, err))
}
