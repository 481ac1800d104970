//! `pipe verify --cache` finds what no stat can tell, and `--repair` makes it a miss.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::lab::Lab;

const CHAIN: &str = "stages:
  a: { kind: shell, with: { command: 'echo first > {out.x}', outputs: [x] } }
  b: { kind: shell, in: { x: a }, with: { command: 'cat {in.x} {in.x} > {out.x}', outputs: [x] } }
";

/// Writes over a file that is read-only.
fn overwrite(file: &Path, text: &str) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, text).unwrap();
}

fn object(lab: &Lab, content: &str) -> std::path::PathBuf {
    let objects = lab.files("cache/v1/objects").into_iter();
    objects.into_iter().find(|file| fs::read_to_string(file).unwrap() == content).unwrap()
}

#[test]
fn damage_is_named_with_the_runs_it_touches_and_repair_makes_it_a_miss() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    lab.run(&[]).success();
    let whole = lab.pipe(&["verify", "--cache"]).success().stdout;
    assert_eq!(whole, "2 objects of 2 results hashed, 18 B: all whole\n");

    overwrite(&object(&lab, "first\n"), "Xirst\n");
    fs::remove_file(object(&lab, "first\nfirst\n")).unwrap();
    let result = lab.files("cache/v1/results").remove(0);
    let said = lab.pipe(&["verify", "--cache"]).ends_with_code(1).stdout;
    assert!(said.contains("damaged object") && said.contains("a of run_2, a of run_1"), "{said}");
    assert!(said.contains("missing object") && said.contains("b of run_2, b of run_1"), "{said}");
    assert_eq!(lab.files("cache/v1/objects").len(), 1, "nothing is removed unasked");

    overwrite(&result, "{");
    let json = lab.pipe(&["verify", "--cache", "--json"]).ends_with_code(1).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["unreadable"].as_array().unwrap().len(), 1);

    lab.pipe(&["verify", "--cache", "--repair"]).success();
    assert!(lab.files("cache/v1/objects").is_empty() && lab.files("cache/v1/results").is_empty());
    assert_eq!(
        lab.pipe(&["verify", "--cache"]).success().stdout,
        "0 objects of 0 results hashed, 0 B: all whole\n"
    );
    assert_eq!(lab.run(&[]).success().stages("done"), ["a", "b"]);
}

#[test]
fn damage_behind_an_unchanged_stat_is_believed_no_more_once_it_was_found() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    let file = object(&lab, "first\n");
    overwrite(&file, "Xirst\n");
    // As if the disk had flipped bits: what the index knows of the file is what its stat is.
    let stat = fs::metadata(&file).unwrap();
    let time = |seconds: i64, nanoseconds: i64| seconds * 1_000_000_000 + nanoseconds;
    let known = (
        stat.size(),
        time(stat.mtime(), stat.mtime_nsec()),
        time(stat.ctime(), stat.ctime_nsec()),
        stat.ino(),
        stat.dev(),
    );
    let index = rusqlite::Connection::open(lab.path("cache/v1/index.db")).unwrap();
    index.execute("UPDATE object SET stat = ?", [postcard::to_stdvec(&known).unwrap()]).unwrap();
    assert_eq!(lab.run(&["--only", "a"]).success().stages("cached"), ["a"], "no stat tells");
    lab.pipe(&["verify", "--cache"]).ends_with_code(1);
    let again = lab.run(&[]).success();
    assert_eq!(again.stages("done"), ["a"], "{}", again.stderr);
    lab.pipe(&["verify", "--cache"]).success();
}

#[test]
fn repair_of_a_run_is_refused_with_the_command_that_was_meant() {
    let lab = Lab::new(CHAIN);
    for words in [&["verify", "--repair"][..], &["verify", "@last", "--repair"]] {
        let said = lab.pipe(words).ends_with_code(2);
        assert!(said.stderr.contains("write `pipe verify --cache --repair`"), "{}", said.stderr);
    }
}

#[test]
fn what_is_kept_can_be_read_by_all_whom_the_umask_lets() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, in: { d: { dir: d } }, with: { command: 'ls {in.d} > {out.x}', outputs: [x] } } }",
    );
    fs::create_dir(lab.path("d")).unwrap();
    lab.write("d/file", "");
    let shell = ["-c", "umask 022; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_pipe"), "run", "pipelines/p.yaml"];
    let mut command = std::process::Command::new("sh");
    assert!(command.args(shell).current_dir(lab.path("")).output().unwrap().status.success());
    for folder in ["objects", "results", "manifests"] {
        let files = lab.files(&format!("cache/v1/{folder}"));
        assert!(!files.is_empty(), "{folder}");
        for file in files {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o044, 0o044, "{}", file.display());
        }
    }
}

#[test]
fn a_folder_without_a_cache_has_none_afterwards() {
    let lab = Lab::new(CHAIN);
    lab.pipe(&["verify", "--cache"]).success();
    assert!(!lab.path("cache").exists());
}

#[test]
fn what_is_no_object_is_named_and_collecting_removes_it() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    let stray = object(&lab, "first\n").with_extension("gz");
    fs::write(&stray, "packed").unwrap();
    let said = lab.pipe(&["verify", "--cache"]).success().stdout;
    assert!(said.starts_with(&format!("stray {}  no object", stray.display())), "{said}");
    assert!(said.ends_with("2 objects of 2 results hashed, 18 B: all whole\n"), "{said}");
    let said = lab.pipe(&["gc"]).success().stdout;
    assert!(said.contains("removed 1 leftover of killed runs, 6 B"), "{said}");
    assert!(!stray.exists());
    assert_eq!(lab.run(&[]).success().stages("cached"), ["a", "b"]);
}
