//! A project in a temporary folder, and the real binary run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub struct Lab {
    folder: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub struct Ended {
    pub out: String,
    pub err: String,
    pub code: i32,
}

impl Lab {
    /// A project with one pipeline, `pipelines/a.yaml`.
    pub fn new(pipeline: impl AsRef<[u8]>) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.write("pipelines/a.yaml", pipeline);
        lab
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, file: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn pipe(&self, words: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(words).current_dir(self.path()).env_remove("PIPE_ROOT").env("NO_COLOR", "1");
        let output = command.output().unwrap();
        Ended {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
            code: output.status.code().expect("not ended by a signal"),
        }
    }

    pub fn check(&self, more: &[&str]) -> Ended {
        self.pipe(&[&["check", "pipelines/a.yaml"], more].concat())
    }

    /// What `pipe check` says of a file that is wrong: exit code 2, nothing printed as a result,
    /// nothing written.
    pub fn refused(&self, more: &[&str]) -> String {
        let ended = self.check(more);
        assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{}", ended.err);
        let written: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!written.iter().any(|name| name == "cache" || name == "runs.db"), "{written:?}");
        ended.err
    }
}
