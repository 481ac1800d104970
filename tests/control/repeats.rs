//! A run that finds all that the run before it found: seen at a glance, and never wrongly.

use std::{fs, io::Write, process::Stdio};

use crate::lab::{Lab, Said};

const SUMS: &str = "stages:
  first: { kind: shell, in: { x: { file: in.txt } }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
  second:
    kind: shell
    in: { y: first, data: { dir: data }, parts: { glob: 'parts/*.txt' } }
    with:
      command: 'cat {in.y} {in.data}/* {in.parts}/parts/* > {out.z}; echo $MODE >> {out.z}'
      outputs: [z]
      env: [MODE, PATH]
";

/// A project whose next run would repeat the one before it.
fn settled() -> Lab {
    let lab = Lab::new(SUMS);
    for folder in ["data", "parts"] {
        fs::create_dir(lab.path(folder)).unwrap();
        lab.write(&format!("{folder}/a.txt"), "a\n");
    }
    lab.write("in.txt", "x\n");
    assert_eq!(lab.run(&[]).success().stages("done"), ["first", "second"]);
    // A file that was only just written is hashed once more before its stat is trusted.
    for _ in 0..3 {
        assert_eq!(lab.run(&[]).success().stages("cached"), ["first", "second"]);
    }
    assert_eq!(repeats(&lab), 1);
    lab
}

/// Runs of the project whose records were not written stage by stage: they found what was remembered.
fn seen_at_a_glance(lab: &Lab) -> Vec<i64> {
    let glance = "SELECT json_group_array(id) FROM run WHERE repeats IS NOT NULL OR stages_digest = x''";
    serde_json::from_str(&lab.ask::<String>(glance)).unwrap()
}

#[test]
fn every_run_after_the_one_that_computed_is_seen_at_a_glance() {
    let lab =
        Lab::new("stages: { a: { kind: shell, with: { command: 'date +%N > {out.x}', outputs: [x] } } }");
    lab.run(&[]).success();
    for _ in 0..4 {
        assert_eq!(lab.run(&[]).success().stages("cached"), ["a"]);
    }
    assert_eq!(seen_at_a_glance(&lab), [2, 3, 4, 5]);
    lab.edit("date", "date -u");
    lab.run(&[]).success();
    for _ in 0..2 {
        assert_eq!(lab.run(&[]).success().stages("cached"), ["a"]);
    }
    assert_eq!(seen_at_a_glance(&lab), [2, 3, 4, 5, 7, 8]);
    let outcomes = "SELECT group_concat(outcome || coalesce(since, '')) FROM stage";
    assert_eq!(lab.ask::<String>(outcomes), "ran1,cached1,cached1,cached1,cached1,ran6,cached6,cached6");
}

/// How many runs could be repeated.
fn repeats(lab: &Lab) -> i64 {
    let index = rusqlite::Connection::open(lab.path("cache/v1/index.db")).unwrap();
    index.query_row("SELECT count(*) FROM repeat", [], |row| row.get(0)).unwrap()
}

fn object_of(lab: &Lab, text: &str) -> std::path::PathBuf {
    let mut objects = lab.files("cache/v1/objects").into_iter();
    objects.find(|object| fs::read_to_string(object).unwrap() == text).unwrap()
}

#[test]
fn it_is_a_run_like_any_other() {
    let lab = settled();
    let said = lab.run(&[]).success();
    assert!(said.stderr.contains("run run_5: pipelines/p.yaml, 2 stages\n"), "{}", said.stderr);
    assert!(said.stderr.contains("cached first   has the result of run_1\n"), "{}", said.stderr);
    assert!(said.stderr.contains("done run_5: nothing to do, 2 cached, in "), "{}", said.stderr);
    let shown = |run: &str| {
        let text = lab.pipe(&["show", run, "--json"]).success().stdout;
        let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in ["run", "started", "ended", "seconds", "repeats"] {
            document.as_object_mut().unwrap().remove(field);
        }
        document
    };
    assert_eq!(shown("run_5"), shown("run_2"), "run_2 went the long way");
    assert_eq!(lab.ask::<String>("SELECT status FROM run WHERE id = 5"), "done");
}

type Edit = fn(&Lab) -> Said;

#[test]
fn whatever_decides_a_rerun_ends_it() {
    let edits: [(&str, Edit, &[&str]); 12] = [
        ("a file", |lab| written(lab, "in.txt", "y\n"), &["first", "second"]),
        ("a file of the same size", |lab| written(lab, "data/a.txt", "b\n"), &["second"]),
        ("a new file in a folder", |lab| written(lab, "data/b.txt", "b\n"), &["second"]),
        ("a new file for a pattern", |lab| written(lab, "parts/b.txt", "b\n"), &["second"]),
        ("a touched file", |lab| written(lab, "in.txt", "x\n"), &[]),
        ("a parameter", |lab| edited(lab, "cp ", "cp -f "), &["first"]),
        ("a comment", |lab| edited(lab, "stages:", "stages: # all"), &[]),
        (
            "a setting",
            |lab| lab.run(&["--set", "first.command=cat {in.x} {in.x} > {out.y}"]),
            &["first", "second"],
        ),
        ("a variable", with_mode, &["second"]),
        (
            "a lost object",
            |lab| after(lab, |lab| fs::remove_file(object_of(lab, "x\n")).unwrap()),
            &["first"],
        ),
        ("a damaged object", |lab| after(lab, damage), &["first"]),
        (
            "a lost cache",
            |lab| after(lab, |lab| fs::remove_dir_all(lab.path("cache")).unwrap()),
            &["first", "second"],
        ),
    ];
    for (what, edit, reruns) in edits {
        let lab = settled();
        assert_eq!(edit(&lab).success().stages("done"), reruns, "{what}");
    }
}

fn after(lab: &Lab, change: impl Fn(&Lab)) -> Said {
    change(lab);
    lab.run(&[])
}

fn written(lab: &Lab, file: &str, text: &str) -> Said {
    after(lab, |lab| lab.write(file, text))
}

fn edited(lab: &Lab, from: &str, to: &str) -> Said {
    after(lab, |lab| lab.edit(from, to))
}

fn with_mode(lab: &Lab) -> Said {
    let output = lab.command(&["run", "pipelines/p.yaml"]).env("MODE", "other").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn damage(lab: &Lab) {
    let object = object_of(lab, "x\n");
    fs::remove_file(&object).unwrap();
    fs::write(&object, "y\n").unwrap();
}

#[test]
fn a_result_that_another_pipeline_replaced_is_taken() {
    let random = "stages:
  dice: { kind: shell, with: { command: 'od -An -N8 -tx1 /dev/urandom > {out.x}', outputs: [x] } }
  after: { kind: shell, in: { x: dice }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
";
    let lab = Lab::new(random);
    lab.write("pipelines/q.yaml", random);
    for _ in 0..3 {
        lab.run(&[]).success();
    }
    assert_eq!(repeats(&lab), 1);
    lab.pipe(&["run", "pipelines/q.yaml", "--force=dice", "--only", "dice"]).success();
    assert_eq!(repeats(&lab), 0);
    assert_eq!(lab.run(&[]).success().stages("done"), ["after"]);
}

#[test]
fn without_its_record_a_run_is_recorded_anew() {
    let lab = settled();
    for file in ["runs.db", "runs.db-wal", "runs.db-shm"] {
        let _ = fs::remove_file(lab.path(file));
    }
    let said = lab.run(&[]).success();
    assert!(said.stderr.contains("run_1: nothing to do, 2 cached"), "{}", said.stderr);
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM stage_record"), 2);
}

#[test]
fn a_run_between_is_not_passed_over() {
    let lab = settled();
    lab.run(&["--only", "first"]).success();
    lab.run(&[]).success();
    let shown = lab.pipe(&["show", "@last"]).success().stdout;
    assert!(shown.contains("second"), "{shown}");
}

#[test]
fn a_stage_with_the_key_of_one_that_was_forced_has_its_result_in_the_next_run() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'date +%N > {out.x}', outputs: [x] } }
  b: { kind: shell, with: { command: 'date +%N > {out.x}', outputs: [x] } }
  c: { kind: shell, in: { x: a, y: b }, with: { command: 'cat {in.x} {in.y} > {out.z}', outputs: [z] } }
",
    );
    lab.run(&[]).success();
    for forced in ["a", "b"] {
        lab.run(&[&format!("--force={forced}")]).success();
        let planned = lab.run(&["-n"]).success().stdout;
        let will_run = planned.lines().filter(|line| line.starts_with("run ")).count();
        let said = lab.run(&[]).success();
        assert_eq!(said.stages("done").len(), will_run, "{planned}{}", said.stderr);
        assert_eq!(lab.run(&[]).success().stages("cached"), ["a", "b", "c"]);
        assert!(!lab.run(&["-n"]).success().stdout.contains("run "));
    }
}

#[test]
fn a_pipeline_that_comes_through_a_pipe_is_read_once() {
    let lab = Lab::new(
        "profiles: { other: { seed: 2 } }
stages: { a: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } } }
",
    );
    let piped = |verb: &str| {
        let mut child = lab.command(&[verb, "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&fs::read(lab.path("pipelines/p.yaml")).unwrap()).unwrap();
        assert!(child.wait().unwrap().success(), "{verb}");
    };
    piped("check");
    piped("run");
    piped("run");
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run WHERE status = 'done'"), 2);
}
