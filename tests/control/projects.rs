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
    let note = "keep `runs.db` out of git: `echo 'runs.db*' >> .gitignore`";
    assert_eq!(notes(&said), [note]);
    assert_eq!(git(&lab.path("."), &["status", "--short", "-uall"]), "?? pipelines/p.yaml\n?? runs.db\n");
    assert_eq!(notes(&lab.run(&["--force"]).success()), [""; 0]);

    fs::remove_file(lab.path("runs.db")).unwrap();
    lab.write(".gitignore", "runs.db*\n");
    lab.write("cache/v1/.gitignore", "mine");
    assert_eq!(notes(&lab.run(&["--force"]).success()), [""; 0]);
    assert_eq!(fs::read_to_string(lab.path("cache/v1/.gitignore")).unwrap(), "mine");
}

#[test]
fn a_history_above_the_git_work_tree_is_another_projects() {
    let home = Lab::new(ONE);
    home.run(&[]).success();
    let repository = home.path("repository");
    fs::create_dir_all(repository.join("deep")).unwrap();
    git(&repository, &["init", "--quiet"]);
    home.write("repository/deep/p.yaml", ONE);
    home.write("repository/.gitignore", "runs.db*\n");
    let pipe = |folder: &Path, arguments: &[&str]| {
        let output = home.command(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [_, talk] = pipe(&repository, &["run", "deep/p.yaml"]);
    let root = repository.canonicalize().unwrap();
    let note = format!("note `{}` is a project now; `--root DIR` names another", root.display());
    assert!(talk.contains(&note), "{talk}");
    assert!(repository.join("runs.db").exists());
    let [runs, _] = pipe(&repository.join("deep"), &["runs"]);
    assert_eq!(runs.lines().count(), 2, "the run of the repository alone: {runs}");
    let [_, talk] = pipe(&repository, &["run", "deep/p.yaml", "--root", "deep"]);
    assert!(!talk.contains("note "), "{talk}");
}
