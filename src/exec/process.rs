//! Runs each stage in a process of its own: a worker, or the command that the stage consists of.
//!
//! A crash, an out-of-memory kill or a fault of a GPU costs one stage, not the run.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
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

    fn start(&self, program: &Path, launch: &Launch<'_>) -> Result<Child, ExecError> {
        let output =
            std::fs::File::create(&launch.output).map_err(ExecError::io("create", &launch.output))?;
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
        let mut child = self.start(program, launch)?;
        let mut stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().expect("the worker's output is piped"));
        let (ended, end) = mpsc::channel();
        if let Err(unfit) = greet(program, &mut stdout, launch.job) {
            drop(stdin);
            let _ = child.kill();
            let _ = child.wait();
            return Err(unfit);
        }
        // The worker may have died already: then how it ended says more than the broken pipe.
        let line = serde_json::to_string(launch.job).expect("a job serializes to JSON");
        let _ = stdin.as_mut().map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        let process = Pid::from_child(&child);
        let waiter = std::thread::spawn(move || ended.send(child.wait4()));
        let mut tail = Tail::new(&launch.job.events);
        let mut ending = Ending::new(stop, launch);
        ending.watch(process);
        let usage = loop {
            match end.recv_timeout(READ_EVERY) {
                Ok(usage) => break usage,
                Err(_) => tail.read(events),
            }
            match ending.due() {
                // A worker ends when its standard input does.
                Some(Exit::Stopped) => stdin = None,
                Some(_) => ending.send(Signal::TERM),
                None => {}
            }
        };
        tail.read(events);
        drop(stdin);
        let _ = waiter.join();
        let usage = usage.map_err(ExecError::io("wait for", program))?;
        Ok(finished(&usage, ending.reason()))
    }
}

/// What tells a process which GPUs are its own: nothing where it has none.
pub(super) fn variables(gpus: &[String]) -> Option<(&'static str, String)> {
    (!gpus.is_empty()).then(|| (VISIBLE, gpus.join(",")))
}

/// Reads what the worker says first and checks that it can run `job`.
fn greet(program: &Path, stdout: &mut impl BufRead, job: &Job) -> Result<(), ExecError> {
    let unfit = |what: String| ExecError::Unfit { path: program.to_owned(), what };
    let mut line = String::new();
    stdout.read_line(&mut line).map_err(ExecError::io("read from", program))?;
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
