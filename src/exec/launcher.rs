//! The process that starts commands.
//!
//! A `pipe` that knows ten thousand stages is large, and to copy its memory tables for each command, as a
//! fork does, costs more than most commands. To begin a small process of its own for each costs as much
//! again. So one small process, `pipe launch`, starts all commands of a run. It also ends them, with
//! all that they started, when its `pipe` is killed.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufRead, BufReader, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::{
    io::FdFlags,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, Signal, kill_process_group},
};
use serde::{Deserialize, Serialize};
use wait4::Wait4;

use super::{files::open_few, sandbox::Sandbox};

/// The word after the program's name that makes it a launcher.
pub const WORD: &str = "launch";
/// The lowest descriptor for the lock: scripts use those below themselves, as in `exec 3>log`.
const LOCK_FROM: i32 = 10;
/// Where programs are looked for without a `PATH`.
const USUAL_PATH: &str = "/bin:/usr/bin";

/// A command to be started, as one line of JSON. With it come three descriptors: where it and the
/// answers pass, the lock that the command holds with all its descendants, and the file that takes
/// what it prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub words: Vec<String>,
    pub folder: OsString,
    pub variables: Vec<(OsString, OsString)>,
    pub sandbox: Option<Sandbox>,
}

/// What became of an order, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It runs, as the leader of this process group.
    Started(i32),
    /// It could not be started; the system's number of the error, if it is one of the system, and its text.
    NotStarted(Option<i32>, String),
    /// It has ended, with this status as the system tells it.
    Ended {
        status: i32,
        /// User and system time, seconds.
        cpu: f64,
        /// Largest resident set, bytes.
        peak_memory: u64,
    },
}

/// Starts what is ordered on the standard input until that ends, then ends what still runs. `files` are those
/// that a command may have open, where this process may have more.
pub fn serve(files: Option<u64>) -> io::Result<()> {
    let groups = Mutex::default();
    let orders = io::stdin();
    thread::scope(|scope| {
        while let Some(received) = receive(orders.as_fd())? {
            // Of an order that came without room for its descriptors, who ordered it sees the end.
            let Ok([order, lock, output]) = <[OwnedFd; 3]>::try_from(received) else { continue };
            let groups = &groups;
            scope.spawn(move || carry_out(UnixStream::from(order), lock, output.into(), files, groups));
        }
        for group in guard(&groups).iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        Ok(())
    })
}

/// The descriptors of the next order, fewer than three where there was no room for them; `None` when there
/// will be none.
fn receive(orders: impl AsFd) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let told = recvmsg(orders, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if told.bytes == 0 {
        return Ok(None);
    }
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    Ok(Some(rights.flatten().collect()))
}

/// Runs one command. Where nobody listens to the answers any more, `pipe` is gone.
fn carry_out(
    order: UnixStream,
    lock: OwnedFd,
    output: File,
    files: Option<u64>,
    groups: &Mutex<HashSet<Pid>>,
) {
    let mut answers = &order;
    let mut answer = |answer: &Answer| {
        let line = serde_json::to_string(answer).expect("an answer serializes to JSON");
        let _ = writeln!(answers, "{line}");
    };
    let started = read(&order).and_then(|order| {
        order.sandbox.as_ref().map_or(Ok(()), Sandbox::enter)?;
        let mut command = command(&order, output)?;
        // Whoever is started meanwhile would hold this lock as well.
        let mut groups = guard(groups);
        let held = rustix::io::fcntl_dupfd_cloexec(&lock, LOCK_FROM)?;
        rustix::io::fcntl_setfd(&held, FdFlags::empty())?;
        let child = command.spawn()?;
        let process = Pid::from_child(&child);
        if let Some(usual) = files {
            open_few(process, usual);
        }
        groups.insert(process);
        Ok(child)
    });
    drop(lock);
    let child = match started {
        Ok(child) => child,
        Err(err) => return answer(&Answer::NotStarted(err.raw_os_error(), err.to_string())),
    };
    let group = Pid::from_child(&child);
    answer(&Answer::Started(group.as_raw_nonzero().get()));
    let ended = child.wait4();
    guard(groups).remove(&group);
    if let Ok(used) = ended {
        let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
        let status = std::os::unix::process::ExitStatusExt::into_raw(used.status);
        answer(&Answer::Ended { status, cpu, peak_memory: used.rusage.maxrss });
    }
}

fn read(order: &UnixStream) -> io::Result<Order> {
    let mut line = String::new();
    BufReader::new(order).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

fn command(order: &Order, output: File) -> io::Result<Command> {
    let (program, arguments) =
        order.words.split_first().ok_or_else(|| io::Error::other("a command has a word"))?;
    let same = output.try_clone()?;
    let mut command = Command::new(located(program, &order.variables));
    command
        .arg0(program)
        .args(arguments)
        .current_dir(&order.folder)
        .env_clear()
        .envs(order.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(same)
        .process_group(0);
    Ok(command)
}

/// Where `program` lies, as the system would look for it: the library starts what lies at a known place without a fork.
fn located(program: &str, variables: &[(OsString, OsString)]) -> PathBuf {
    let path =
        variables.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(USUAL_PATH), |(_, path)| path);
    let is_program = |file: &PathBuf| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let mut places = std::env::split_paths(path).map(|folder| folder.join(program));
    let found = if program.contains('/') { None } else { places.find(is_program) };
    found.unwrap_or_else(|| program.into())
}

fn guard(groups: &Mutex<HashSet<Pid>>) -> MutexGuard<'_, HashSet<Pid>> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}
