//! A machine with made-up GPUs.

use std::path::{Path, PathBuf};

use crate::lab::{Lab, Said};

/// What the stand-in for the CUDA worker says and how it ends.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    devices: String,
    stderr: &'static str,
    code: i32,
    visible: Option<&'static str>,
}

impl Fake {
    /// A machine with `count` equal GPUs.
    pub fn with_gpus(count: usize) -> Self {
        let gpu = |index| {
            format!(
                r#"{{"gpu":{{"index":{index},"name":"Made-up GPU","memory":85899345920,"compute_capability":"9.0","driver":"13.0"}}}}"#
            )
        };
        Self { devices: (0..count).map(|index| gpu(index) + "\\n").collect(), ..Self::default() }
    }

    /// A worker that has started and cannot use a GPU.
    pub fn failing(kind: &str, message: &str) -> Self {
        let devices = format!(r#"{{"failed":{{"kind":"{kind}","message":"{message}"}}}}"#);
        Self { devices: devices + "\\n", code: 1, ..Self::default() }
    }

    /// A worker that prints `stderr` and ends with `code`.
    pub fn ending(stderr: &'static str, code: i32) -> Self {
        Self { stderr, code, ..Self::default() }
    }

    /// In a process that sees only the GPUs that `CUDA_VISIBLE_DEVICES` names so.
    pub fn seen_as(self, visible: &'static str) -> Self {
        Self { visible: Some(visible), ..self }
    }

    /// What `pipe` says with `arguments` on this machine.
    pub fn pipe(&self, lab: &Lab, arguments: &[&str]) -> Said {
        let mut command = lab.command(arguments);
        command
            .env("PIPE_CUDA_WORKER", worker())
            .env("FAKE_PIPE", env!("CARGO_BIN_EXE_pipe"))
            .env("FAKE_LOG", lab.path("log"))
            .env("FAKE_DEVICES", &self.devices)
            .env("FAKE_STDERR", self.stderr)
            .env("FAKE_CODE", self.code.to_string())
            .env_remove("CUDA_VISIBLE_DEVICES");
        self.visible.map(|names| command.env("CUDA_VISIBLE_DEVICES", names));
        let output = command.output().unwrap();
        Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// `pipe run pipelines/p.yaml` with `more` arguments.
    pub fn run(&self, lab: &Lab, more: &[&str]) -> Said {
        self.pipe(lab, &[&["run", "pipelines/p.yaml"], more].concat())
    }
}

/// The lines that the worker noted, in order: `probe`, and `STAGE on NAMES` for each stage that it was given.
pub fn noted(lab: &Lab) -> Vec<String> {
    let text = std::fs::read_to_string(lab.path("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn worker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/devices/fake_worker.sh")
}
