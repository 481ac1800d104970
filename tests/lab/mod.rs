//! A project in a folder of its own, worked on through the real binary.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A small but whole experiment: every kind that trains, in a second or two.
pub const EXPERIMENT: &str = r"name: toy
seed: 1
stages:
  reviews: { kind: sample_reviews, with: { train: 60, test: 30, max_sentences: 4 } }
  tokens_train: { kind: tokenize, in: { reviews: reviews.train } }
  tokens_test: { kind: tokenize, in: { reviews: reviews.test } }
  gpt2: { kind: gpt2, with: { init: random, n_layer: 2, n_head: 2, n_embd: 16, block_size: 256 } }
  trunk_train: { kind: encode, in: { tokens: tokens_train, weights: gpt2 }, with: { blocks: 1 } }
  trunk_test: { kind: encode, in: { tokens: tokens_test, weights: gpt2 }, with: { blocks: 1 } }
  zero_shot: { kind: zero_shot, in: { hidden: trunk_test, weights: gpt2 } }
  fine_tune:
    kind: fine_tune
    in: { hidden: trunk_train, weights: gpt2 }
    with: { train_blocks: 1, steps: 20, warmup: 2, eval_every: 10, batch: 4, micro_batch: 2 }
  lora:
    kind: lora
    in: { hidden: trunk_train, weights: gpt2 }
    with: { train_blocks: 1, steps: 20, warmup: 2, eval_every: 10, batch: 4, micro_batch: 2, rank: 8 }
  fine_tuned: { kind: classify, in: { hidden: trunk_test, weights: gpt2, model: fine_tune } }
  lora_tuned: { kind: classify, in: { hidden: trunk_test, weights: gpt2, model: lora } }
  eval: { kind: evaluate, in: { zero_shot: zero_shot, fine_tuned: fine_tuned, lora: lora_tuned } }
";

/// A stage for each of four combinations of values, and one that takes from all of a rank.
pub const SWEEP: &str = r#"name: sweep
stages:
  data: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } }
  train:
    kind: shell
    matrix: { rank: [4, 16], lr: [1e-3, 0.01] }
    in: { x: data }
    with:
      command: 'echo rank {params.rank}; echo {params.rank} {params.lr} > {out.model};
        printf "step,loss\n1,4\n2,%s\n" {params.rank} > {metrics}'
      params: { rank: "${matrix.rank}", lr: "${matrix.lr}" }
      outputs: [model]
      metrics: loss.csv
  both: { kind: shell, in: { m: { gather: train, over: lr } }, with: { command: 'echo ends > {out.y}', outputs: [y] } }
"#;

/// A project folder with `pipelines/p.yaml`.
pub struct Lab {
    folder: TempDir,
}

/// What a finished `pipe` said.
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    #[track_caller]
    pub fn success(self) -> Self {
        self.ends_with_code(0)
    }

    #[track_caller]
    pub fn ends_with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The stages whose line on standard error begins with `verb`, in order of their names.
    pub fn stages(&self, verb: &str) -> Vec<&str> {
        let lines = self.stderr.lines().filter_map(|line| line.trim_start().strip_prefix(verb));
        let mut names: Vec<&str> = lines
            .filter_map(|rest| rest.strip_prefix(' ')?.split_whitespace().next())
            .filter(|name| !name.starts_with("run_"))
            .collect();
        names.sort_unstable();
        names
    }
}

impl Lab {
    pub fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pipelines")).unwrap();
        let lab = Self { folder };
        lab.write("pipelines/p.yaml", pipeline);
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("pipelines/p.yaml")).unwrap();
        assert!(text.contains(from), "`{from}` is not in the pipeline");
        self.write("pipelines/p.yaml", text.replace(from, to));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("PIPE_ROOT");
        // What is printed is that of a machine without a GPU, also on one that has some.
        command.env("PIPE_CUDA_WORKER", "/no/worker");
        command
    }

    pub fn pipe(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `pipe run pipelines/p.yaml` with `more` arguments.
    pub fn run(&self, more: &[&str]) -> Said {
        self.pipe(&[&["run", "pipelines/p.yaml"], more].concat())
    }

    /// Starts `pipe run pipelines/p.yaml` and returns once it has said `line`.
    pub fn start_until(&self, more: &[&str], line: &str) -> Child {
        let mut command = self.command(&[&["run", "pipelines/p.yaml"], more].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(line) {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "ended without saying `{line}`:\n{said}");
        }
        // What it says later must not break its pipe.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        child
    }

    /// Answers one question about `runs.db`.
    pub fn ask<T: rusqlite::types::FromSql>(&self, question: &str) -> T {
        let database = rusqlite::Connection::open(self.path("runs.db")).unwrap();
        database.query_row(question, [], |row| row.get(0)).unwrap()
    }

    /// The processes that work in this project, by their numbers.
    pub fn workers(&self) -> Vec<i32> {
        let here = self.folder.path().canonicalize().unwrap();
        let is_worker = |process: &i32| {
            let process = PathBuf::from(format!("/proc/{process}"));
            fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == here)
                && fs::read(process.join("cmdline")).is_ok_and(|line| line.ends_with(b"\0worker\0"))
        };
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(is_worker).collect()
    }

    /// Every file below a folder of the project.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.path(folder)).into_iter().filter_map(Result::ok);
        files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    }
}

/// Asks again and again until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_mins(1), "{what} did not come about in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a process.
pub fn send(signal: Signal, process: i32) {
    kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
}

/// The reviews archive, or `None` where it is not.
pub fn archive() -> Option<PathBuf> {
    let given = std::env::var_os("PIPE_IMDB").filter(|path| !path.is_empty()).map(PathBuf::from);
    let required = given.is_some() || std::env::var_os("PIPE_REQUIRE_REFERENCE").is_some_and(|it| it == "1");
    let path = given.unwrap_or_else(|| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/aclImdb_labelled.tar.gz")
    });
    match path.exists() {
        true => Some(path),
        false if required => panic!("`{}` is required here but missing", path.display()),
        false => {
            eprintln!("skipped: `{}` is not here", path.display());
            None
        }
    }
}
