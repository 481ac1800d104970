//! Where a project lies, and what of it belongs into git.

use std::{fs, path::Path, process::Command};

use crate::lab::{Lab, Said};

const ONE: &str = "stages: { a: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } } }\n";

#[track_caller]
fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of talk that are notes.
fn notes(said: &Said) -> Vec<&str> {
    said.stderr.lines().filter_map(|line| line.trim_start().strip_prefix("note ")).collect()
}

#[test]
fn git_leaves_the_cache_alone_and_the_first_run_says_how_it_leaves_the_history_alone() {
    let lab = Lab::new(ONE);
    git(&lab.path("."), &["init", "--quiet"]);
    let said = lab.run(&[]).success();
    let note =
        "`runs.db` is the history of this machine and best left out of git: `echo 'runs.db*' >> .gitignore`";
    assert_eq!(notes(&said), [note]);
    assert_eq!(git(&lab.path("."), &["status", "--short", "-uall"]), "?? pipelines/p.yaml\n?? runs.db\n");
    assert_eq!(notes(&lab.run(&["--force"]).success()), [""; 0]);

    fs::remove_file(lab.path("runs.db")).unwrap();
    lab.write(".gitignore", "runs.db*\n");
    lab.write("cache/v1/.gitignore", "mine");
    assert_eq!(notes(&lab.run(&["--force"]).success()), [""; 0]);
    assert_eq!(fs::read_to_string(lab.path("cache/v1/.gitignore")).unwrap(), "mine");
}
