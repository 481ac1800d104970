//! `pipe reproduce`.

use std::fs;

use serde_json::Value;

use crate::{
    git,
    lab::{EXPERIMENT, Lab},
    words,
};

fn verdicts(lab: &Lab, arguments: &[&str], code: i32) -> Vec<(String, String)> {
    let said = lab.pipe(&[&["reproduce"], arguments, &["--json"]].concat()).ends_with_code(code);
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let stages = document["stages"].as_array().unwrap();
    stages.iter().map(|stage| (text(&stage["stage"]), text(&stage["verdict"]))).collect()
}

/// Names and keys of the stages of a run.
fn keys(lab: &Lab, run: i64) -> String {
    lab.ask(&format!(
        "SELECT group_concat(stage || key) FROM (SELECT stage, key FROM stage WHERE run = {run} ORDER BY stage)"
    ))
}

#[test]
fn a_recorded_pipeline_has_the_keys_it_had_whatever_became_of_its_file() {
    let lab = Lab::new(&format!(
        "{EXPERIMENT}profiles: {{ short: {{ stages: {{ lora: {{ with: {{ steps: 10, lr: 1e-4 }} }} }} }} }}\n"
    ));
    lab.run(&["--profile", "short", "--set", "lora.rank=4", "--set", "seed=18446744073709551615"]).success();
    fs::remove_file(lab.path("pipelines/p.yaml")).unwrap();
    let said = lab.pipe(&["reproduce", "run_1"]).success();
    assert!(said.stderr.contains("run_2: nothing to do, 12 cached"), "{}", said.stderr);
    assert!(said.stderr.contains("run_1 as run_2: 12 not checked"), "{}", said.stderr);
    assert_eq!(keys(&lab, 1), keys(&lab, 2));
    let of = |column: &str| lab.ask::<i64>(&format!("SELECT count(DISTINCT {column}) FROM run"));
    assert_eq!(["resolved", "file", "pipeline", "profiles", "sets", "seed"].map(of), [1; 6]);
}

#[test]
fn a_reference_to_a_variable_that_was_escaped_stays_a_text() {
    let lab = Lab::new(
        "vars: { x: 1 }\nstages:\n  a: { kind: shell, with: { command: \"echo '$${vars.x}' > {out.a}\", outputs: [a] } }\n",
    );
    lab.run(&[]).success();
    lab.pipe(&["reproduce", "run_1"]).success();
    assert_eq!(keys(&lab, 1), keys(&lab, 2));
}

#[test]
fn without_its_cache_an_experiment_is_computed_again_and_comes_out_identical() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    fs::remove_dir_all(lab.path("cache/v1")).unwrap();
    let told = verdicts(&lab, &["run_1"], 0);
    assert_eq!(told.len(), 12);
    assert!(told.iter().all(|(_, verdict)| verdict == "identical"), "{told:?}");
}

#[test]
fn what_is_in_the_cache_counts_as_not_checked_until_it_is_forced() {
    let lab = words();
    lab.run(&[]).success();
    let both = |word: &str| ["sort", "count"].map(|stage| (stage.to_owned(), word.to_owned())).to_vec();
    assert_eq!(verdicts(&lab, &["run_1"], 0), both("not_checked"));
    let said = lab.pipe(&["reproduce", "run_1"]).success();
    assert!(
        said.stdout.contains("not checked  sort  its recorded result is in the cache"),
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("`--force` computes again what was found"), "{}", said.stderr);
    assert_eq!(verdicts(&lab, &["run_1", "--force"], 0), both("identical"));
}

#[test]
fn other_contents_of_an_input_are_named_and_make_the_exit_code_1() {
    let lab = words();
    lab.run(&[]).success();
    lab.write("text.txt", "pear\napple\nfig\n");
    let said = lab.pipe(&["reproduce", "run_1"]).ends_with_code(1);
    for part in [
        "different    sort  output sorted: line 2",
        "not the recorded computation: in.text: ",
        " (text.txt)\n",
        " (sort)\n",
        "different    count  output first: line 2",
    ] {
        assert!(said.stdout.contains(part), "`{part}` is not in\n{}", said.stdout);
    }
    assert!(said.stderr.contains("run_1 as run_2: 2 different"), "{}", said.stderr);
}

#[test]
fn only_the_stages_of_the_record_are_compared_and_what_they_need_is_computed() {
    let lab = words();
    lab.run(&[]).success();
    lab.run(&["--only", "count"]).success();
    fs::remove_dir_all(lab.path("cache/v1")).unwrap();
    assert_eq!(verdicts(&lab, &["run_2"], 0), [("count".to_owned(), "identical".to_owned())]);
}

#[test]
fn a_failure_is_told_and_what_needs_it_was_not_reached() {
    let lab = words();
    lab.write("flag", "");
    lab.edit("sort {in.text}", "test -e flag && sort {in.text}");
    lab.run(&[]).success();
    fs::remove_dir_all(lab.path("cache/v1")).unwrap();
    fs::remove_file(lab.path("flag")).unwrap();
    let said = lab.pipe(&["reproduce", "run_1"]).ends_with_code(1);
    assert!(said.stdout.contains("failed       sort"), "{}", said.stdout);
    assert!(said.stdout.contains("failed       count  it was not reached"), "{}", said.stdout);
    assert!(said.stderr.contains("again pipe reproduce run_1\n"), "{}", said.stderr);
    let said = lab.pipe(&["reproduce", "run_1", "--force", "-j", "1"]).ends_with_code(1);
    assert!(said.stderr.contains("again pipe reproduce run_1 --force -j 1\n"), "{}", said.stderr);
}

#[test]
fn a_missing_file_is_refused_at_its_place_in_the_record() {
    let lab = words();
    lab.run(&[]).success();
    fs::remove_file(lab.path("text.txt")).unwrap();
    let said = lab.pipe(&["reproduce", "run_1"]).ends_with_code(2);
    assert!(said.stderr.contains("file `text.txt` does not exist"), "{}", said.stderr);
    assert!(said.stderr.contains("run_1:"), "{}", said.stderr);
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1, "a refused reproduction is no run");
}

/// A project under git whose only run had an uncommitted change, and which has gone on since.
fn moved_on() -> Lab {
    let lab = words();
    lab.write(".gitignore", "cache/\nruns.db*\n");
    git(&lab, &["init", "-q"]);
    git(&lab, &["add", "."]);
    git(&lab, &["commit", "-qm", "one"]);
    lab.write("count.sh", crate::SCRIPT.replace("head", "tail"));
    // What people configure for their eyes must not get into the record.
    for (name, value) in [("color.ui", "always"), ("diff.noprefix", "true"), ("diff.external", "true")] {
        git(&lab, &["config", name, value]);
    }
    lab.run(&[]).success();
    lab.write("count.sh", "exit 1\n");
    git(&lab, &["commit", "-qam", "two"]);
    lab
}

#[test]
fn how_code_differs_from_the_record_is_said_first() {
    let lab = moved_on();
    let said = lab.pipe(&["reproduce", "run_1", "-n"]).success();
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert!(lines[0].starts_with("commit: ") && lines[0].ends_with(" today"), "{}", said.stderr);
    assert!(lines[1].starts_with("uncommitted changes: patch ") && lines[1].ends_with("none today"));
    assert!(said.stdout.contains("run     count"), "{}", said.stdout);
    let json = lab.pipe(&["reproduce", "run_1", "-n", "--json"]).success().stdout;
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["differences"][0]["what"], "commit");
    assert_eq!(told["stages"][1]["verdict"], "run", "{json}");
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1, "a dry run is no run");
}

#[test]
fn a_worktree_has_the_recorded_commit_and_the_uncommitted_changes() {
    let lab = moved_on();
    lab.pipe(&["reproduce", "run_1"]).ends_with_code(1);
    let said = lab.pipe(&["reproduce", "run_1", "--worktree", "again"]).success();
    assert!(said.stderr.contains("run_1 as run_1 of again: 2 identical"), "{}{}", said.stdout, said.stderr);
    assert!(!said.stderr.contains(" today"), "{}", said.stderr);
    assert_eq!(
        fs::read_to_string(lab.path("again/count.sh")).unwrap(),
        crate::SCRIPT.replace("head", "tail")
    );
    // The same folder serves again; one of another commit does not.
    let said = lab.pipe(&["reproduce", "run_1", "--worktree", "again"]).success();
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    let said = lab.pipe(&["reproduce", "@last", "--worktree", "again"]).ends_with_code(2);
    assert!(said.stderr.contains("checked out, not"), "{}", said.stderr);
}

#[test]
fn a_worktree_needs_a_commit_in_the_record() {
    let lab = words();
    lab.run(&[]).success();
    let said = lab.pipe(&["reproduce", "run_1", "--worktree", "again"]).ends_with_code(2);
    assert!(said.stderr.contains("run_1 was not started in a git checkout"), "{}", said.stderr);
}

#[test]
fn uncommitted_changes_that_are_too_large_to_keep_are_not_taken_for_none() {
    let lab = words();
    lab.write("large.txt", "a line of many\n".repeat(1 << 19));
    git(&lab, &["init", "-q"]);
    git(&lab, &["add", "large.txt"]);
    git(&lab, &["commit", "-qm", "one"]);
    lab.write("large.txt", "another of them\n".repeat(1 << 19));
    lab.run(&[]).success();
    let said = lab.pipe(&["show", "run_1"]).success();
    assert!(said.stdout.contains(", with uncommitted changes"), "{}", said.stdout);
    let said = lab.pipe(&["reproduce", "run_1", "--worktree", "again"]).ends_with_code(2);
    assert!(said.stderr.contains("are not kept: they were larger than 16 MiB"), "{}", said.stderr);
}

#[test]
fn a_run_that_was_killed_before_anything_was_recorded_is_not_compared_with_nothing() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'sleep 60' } } }");
    let mut pipe = lab.start_until(&[], "running a");
    pipe.kill().unwrap();
    pipe.wait().unwrap();
    for more in [&[][..], &["-n"]] {
        let said = lab.pipe(&[&["reproduce", "run_1"], more].concat()).ends_with_code(2);
        assert!(said.stderr.contains("run_1 ended before it recorded a stage"), "{}", said.stderr);
    }
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1);
}
