//! Orders commands from the process that starts them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IoSlice, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{
    files::open_many,
    launcher::{Answer, Order, WORD},
};

/// The launcher, once a command was ordered.
#[derive(Debug)]
pub(super) struct Starter {
    program: PathBuf,
    launcher: Mutex<Option<Launcher>>,
}

#[derive(Debug)]
struct Launcher {
    orders: UnixStream,
    process: Child,
}

/// A command that was ordered.
pub(super) struct Ordered {
    answers: BufReader<UnixStream>,
    line: String,
}

impl Starter {
    /// The launcher is `program launch`.
    pub fn new(program: PathBuf) -> Self {
        // Before anything is opened for stages: a hundred that wait for the first command to start have a lock each.
        open_many();
        Self { program, launcher: Mutex::default() }
    }

    /// Orders a command that holds `lock` and prints to `output`.
    pub fn start(&self, order: &Order, lock: &File, output: &File) -> io::Result<Ordered> {
        let (mut own, theirs) = UnixStream::pair()?;
        self.send([theirs.as_fd(), lock.as_fd(), output.as_fd()])?;
        drop(theirs);
        let line = serde_json::to_string(order).map_err(io::Error::other)?;
        writeln!(own, "{line}")?;
        Ok(Ordered { answers: BufReader::new(own), line: String::new() })
    }

    fn send(&self, descriptors: [std::os::fd::BorrowedFd<'_>; 3]) -> io::Result<()> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = launcher.as_mut()
            && running.process.try_wait()?.is_some()
        {
            *launcher = None;
        }
        if launcher.is_none() {
            *launcher = Some(Launcher::begin(&self.program)?);
        }
        let orders = &launcher.as_ref().expect("it was just begun").orders;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(orders, &[IoSlice::new(b"\n")], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Launcher {
    fn begin(program: &Path) -> io::Result<Self> {
        let (orders, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        // Ctrl-C is for `pipe`, which then ends what runs in order.
        command
            .arg(WORD)
            .args(open_many().map(|usual| usual.to_string()))
            .stdin(OwnedFd::from(theirs))
            .stdout(std::process::Stdio::null())
            .process_group(0);
        Ok(Self { orders, process: command.spawn()? })
    }
}

impl Drop for Launcher {
    /// It ends when there can be no more orders.
    fn drop(&mut self) {
        let _ = self.orders.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

impl Ordered {
    /// The next answer, or `None` if there is none within `time`.
    pub fn answer(&mut self, time: Duration) -> io::Result<Option<Answer>> {
        self.answers.get_ref().set_read_timeout(Some(time))?;
        match self.answers.read_line(&mut self.line) {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "`pipe launch` has ended")),
            Ok(_) => {
                let answer = serde_json::from_str(&self.line).map_err(io::Error::other)?;
                self.line.clear();
                Ok(Some(answer))
            }
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(err) => Err(err),
        }
    }
}
