//! Runs each stage in a process of its own: a worker, or the command that the stage consists of.
//!
//! A crash, an out-of-memory kill or a fault of a GPU costs one stage, not the run.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use pipe_stages::{
    contract::{Device, Event, Hello, Job, PROTOCOL, Stage},
    kinds::shell::Shell,
};
use rustix::process::{Pid, Signal};
use wait4::{ResUse, Wait4};

use super::{
    CudaWorker, ExecError, Executor, Exit, Finished, Launch, Stop, VISIBLE, command, ending::Ending,
    starter::Starter, tail::Tail,
};

/// How often a running stage's events are read.
const READ_EVERY: Duration = Duration::from_millis(100);
/// Bytes that a greeting may have, at most.
const LONGEST_GREETING: u64 = 1 << 20;
/// The descriptor under which a worker holds the lock of its key.
const LOCK_DESCRIPTOR: i32 = 3;

/// Tells glibc's allocator to keep what is freed: a step of training frees and takes the same hundreds of
/// megabytes, and to get them from the kernel each time costs 5 % of it.
const KEEP_MEMORY: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "4294967296"), ("MALLOC_TRIM_THRESHOLD_", "4294967296")];

/// Starts a worker program for every stage.
#[derive(Debug, Clone)]
pub struct ProcessExecutor {
    program: PathBuf,
    arguments: Vec<String>,
    cuda: Option<CudaWorker>,
    starter: Arc<Starter>,
}

impl ProcessExecutor {
    /// Workers are `program arguments…`, such as `pipe worker`.
    pub fn new(program: PathBuf, arguments: &[&str]) -> Self {
        let starter = Arc::new(Starter::new(program.clone()));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { program, arguments, cuda: None, starter }
    }

    /// Jobs on a GPU go to `worker`, with the same arguments.
    #[must_use]
    pub fn with_cuda(self, worker: Option<CudaWorker>) -> Self {
        Self { cuda: worker, ..self }
    }

    fn program_for(&self, job: &Job) -> &Path {
        let cuda = self.cuda.as_ref().filter(|_| job.device == Device::Cuda);
        cuda.map_or(&self.program, CudaWorker::program)
    }

    fn start(&self, program: &Path, launch: &Launch<'_>, output: File) -> Result<Child, ExecError> {
        let lock: OwnedFd = launch.lock.try_clone().map_err(ExecError::io("share", &launch.output))?.into();
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .current_dir(launch.root)
            .env("RAYON_NUM_THREADS", launch.job.threads.to_string())
            .envs(KEEP_MEMORY)
            .envs(variables(launch.gpus))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            // Ctrl-C is for `pipe`, which then ends its workers in order.
            .process_group(0)
            .fd_mappings(vec![FdMapping { parent_fd: lock, child_fd: LOCK_DESCRIPTOR }])
            .expect("one descriptor cannot collide");
        command.spawn().map_err(ExecError::io("start", program))
    }
}

impl Executor for ProcessExecutor {
    fn execute(
        &self,
        launch: &Launch<'_>,
        stop: &Stop,
        events: &mut dyn FnMut(Event),
    ) -> Result<Finished, ExecError> {
        if launch.job.kind == Shell::KIND {
            return command::execute(&self.starter, launch, stop, events);
        }
        let program = self.program_for(launch.job);
        let output = File::create(&launch.output).map_err(ExecError::io("create", &launch.output))?;
        let log = output.try_clone().map_err(ExecError::io("share", &launch.output))?;
        let mut child = self.start(program, launch, output)?;
        let mut ending = Ending::new(stop, launch);
        ending.watch(Pid::from_child(&child));
        let mut stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("the worker's output is piped");
        let (sender, heard) = mpsc::channel();
        listen(stdout, log, sender.clone());
        std::thread::spawn(move || sender.send(Heard::Ended(child.wait4())));
        let mut tail = Tail::new(&launch.job.events);
        let (mut ended, mut is_silent, mut refused) = (None, false, None);
        let usage = loop {
            match heard.recv_timeout(READ_EVERY) {
                Ok(Heard::Greeting(line)) => match greet(program, line, launch.job) {
                    Ok(()) => hand_over(launch.job, stdin.as_mut()),
                    Err(unfit) => {
                        refused = Some(unfit);
                        ending.send(Signal::KILL);
                    }
                },
                Ok(Heard::Silence) => is_silent = true,
                Ok(Heard::Ended(usage)) => ended = Some(usage),
                Err(_) => {
                    tail.read(events);
                    // What it has started and left running may still hold its output.
                    is_silent |= ended.is_some();
                }
            }
            if let Some(usage) = ended.take_if(|_| is_silent) {
                break usage;
            }
            match ending.due() {
                // A worker ends when its standard input does.
                Some(Exit::Stopped) => stdin = None,
                Some(_) => ending.send(Signal::TERM),
                None => {}
            }
        };
        tail.read(events);
        let usage = usage.map_err(ExecError::io("wait for", program))?;
        match (ending.reason(), refused) {
            (None, Some(unfit)) => Err(unfit),
            (reason, _) => Ok(finished(&usage, reason)),
        }
    }
}

/// What is heard of a worker, from threads that wait for it.
enum Heard {
    /// The first line that it said; empty if it said nothing.
    Greeting(io::Result<String>),
    /// It says no more.
    Silence,
    /// It has ended.
    Ended(io::Result<ResUse>),
}

/// Hands on what a worker says first. What else it prints goes into its log: a pipe that nobody reads would
/// stop it once it is full.
fn listen(stdout: ChildStdout, mut log: File, sender: Sender<Heard>) {
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.by_ref().take(LONGEST_GREETING).read_line(&mut line);
        // Nobody may be listening any more.
        let _ = sender.send(Heard::Greeting(read.map(|_| line)));
        if io::copy(&mut stdout, &mut log).is_err() {
            // A full disk must not stop it either.
            let _ = io::copy(&mut stdout, &mut io::sink());
        }
        let _ = sender.send(Heard::Silence);
    });
}

/// Gives the worker its job. It may have died already: then how it ended says more than the broken pipe.
fn hand_over(job: &Job, stdin: Option<&mut ChildStdin>) {
    let line = serde_json::to_string(job).expect("a job serializes to JSON");
    let _ = stdin.map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
}

/// What tells a process which GPUs are its own: nothing where it has none.
pub(super) fn variables(gpus: &[String]) -> Option<(&'static str, String)> {
    (!gpus.is_empty()).then(|| (VISIBLE, gpus.join(",")))
}

/// Checks by what the worker says first that it can run `job`.
fn greet(program: &Path, line: io::Result<String>, job: &Job) -> Result<(), ExecError> {
    let unfit = |what: String| ExecError::Unfit { path: program.to_owned(), what };
    let line = line.map_err(ExecError::io("read from", program))?;
    if line.is_empty() {
        // It has ended already: how it ended is told by those who wait for it.
        return Ok(());
    }
    let hello: Hello =
        serde_json::from_str(&line).map_err(|_| unfit(format!("says `{}` instead of hello", line.trim())))?;
    if hello.protocol != PROTOCOL {
        let what =
            format!("{} speaks protocol {}, this `pipe` speaks {PROTOCOL}", hello.build, hello.protocol);
        return Err(unfit(what));
    }
    match hello.kinds.get(&job.kind) {
        Some(version) if *version == job.version => Ok(()),
        Some(version) => Err(unfit(format!(
            "has kind `{}` version {version}, wanted is version {}",
            job.kind, job.version
        ))),
        None => Err(unfit(format!("{} does not know kind `{}`", hello.build, job.kind))),
    }
}

/// How a process ended that used this much; `reason` is why it was made to, if it was.
fn finished(usage: &ResUse, reason: Option<Exit>) -> Finished {
    let seconds = usage.rusage.utime + usage.rusage.stime;
    Finished {
        exit: reason.unwrap_or_else(|| exit(usage.status)),
        cpu: seconds.as_secs_f64(),
        peak_memory: usage.rusage.maxrss,
    }
}

/// What the system says of how a process ended.
pub(super) fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(1),
    }
}
