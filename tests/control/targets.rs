//! `--only`, `--from`, `--until`, `--force`: what runs of a diamond `raw ─► left, right ─► both ─► last`.

use crate::lab::{Lab, Said};

fn diamond() -> Lab {
    let lab = Lab::new(
        "stages:
  raw: { kind: shell, in: { x: { file: x.txt } }, with: { command: 'cat {in.x} > {out.y}', outputs: [y] } }
  left: { kind: shell, in: { x: raw }, with: { command: 'sed s/a/b/ {in.x} > {out.y}', outputs: [y] } }
  right: { kind: shell, in: { x: raw }, with: { command: 'wc -c < {in.x} > {out.y}', outputs: [y] } }
  both: { kind: shell, in: { l: left, r: right }, with: { command: 'cat {in.l} {in.r} > {out.y}', outputs: [y] } }
  last: { kind: shell, in: { x: both }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    );
    lab.write("x.txt", "a\n");
    lab
}

/// The stages that were looked at, and of them those that ran.
fn did(said: &Said) -> (Vec<&str>, Vec<&str>) {
    let ran = said.stages("done");
    let mut all = [said.stages("cached"), ran.clone(), said.stages("skipped")].concat();
    all.sort_unstable();
    (all, ran)
}

#[test]
fn until_runs_a_stage_and_all_it_needs_and_the_headline_says_how_many() {
    let lab = diamond();
    let said = lab.run(&["--until", "left"]).success();
    assert_eq!(did(&said).0, ["left", "raw"]);
    assert!(said.stderr.contains("2 of 5 stages"), "{}", said.stderr);
}

#[test]
fn from_runs_a_stage_and_all_that_takes_from_it() {
    let lab = diamond();
    lab.run(&[]).success();
    lab.write("x.txt", "aa\n");
    lab.run(&["--until", "raw"]).success();
    let said = lab.run(&["--from", "right", "--from", "left"]).success();
    let all = vec!["both", "last", "left", "right"];
    assert_eq!(did(&said), (all.clone(), all));
}

#[test]
fn from_and_until_select_what_lies_in_both() {
    let lab = diamond();
    lab.run(&["--until", "right"]).success();
    let said = lab.run(&["--from", "left", "--until", "both"]).success();
    assert_eq!(did(&said).1, ["both", "left"]);
    let apart = lab.run(&["--from", "left", "--until", "right"]).ends_with_code(2);
    assert!(apart.stderr.contains("no stage lies in --from and --until at once"), "{}", apart.stderr);
}

#[test]
fn only_runs_exactly_the_stages_that_a_pattern_names() {
    let lab = diamond();
    lab.run(&["--until", "raw"]).success();
    let said = lab.run(&["--only", "{left,r*t}"]).success();
    assert_eq!(did(&said).0, ["left", "right"]);
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM stage WHERE run = 2"), 2);
}

#[test]
fn a_result_that_is_not_there_is_one_error_with_the_command_that_computes_it() {
    let lab = diamond();
    for more in [&["--only", "both"][..], &["--only", "both", "-n"]] {
        let said = lab.run(more).ends_with_code(2);
        assert!(said.stderr.contains("`left`, `right`"), "{}", said.stderr);
        let command = "pipe run pipelines/p.yaml --until left --until right";
        assert!(said.stderr.replace("\n        ", " ").contains(command), "{}", said.stderr);
    }
    assert!(!lab.path("runs.db").exists(), "no run was begun");
    let until = ["run", "pipelines/p.yaml", "--until", "left", "--until", "right"];
    lab.pipe(&until).success();
    assert_eq!(lab.run(&["--only", "both"]).success().stages("done"), ["both"]);
}

#[test]
fn a_stage_that_takes_from_one_outside_which_turns_out_to_be_old_is_skipped() {
    let lab = diamond();
    lab.run(&[]).success();
    lab.write("x.txt", "ab\n");
    // `raw` runs and gives other bytes, so that `left` has no result, and is not selected.
    let plan = lab.run(&["-n", "--only", "raw", "--only", "right", "--only", "both"]).success().stdout;
    insta::assert_snapshot!(without_digests(&plan), @r"
    run     raw    in.x: … → … (x.txt), since run_1
    run     right  takes from raw, which has to run
    skip    both   needs left, which has no result and is not selected
    ");
    let said = lab.run(&["--only", "raw", "--only", "right", "--only", "both"]).ends_with_code(1);
    assert_eq!(said.stages("done"), ["raw", "right"]);
    assert!(said.stderr.contains("needs left, which has no result and is not selected"), "{}", said.stderr);

    // Where it gives the bytes of an earlier run, `left` has its result and `both` goes on.
    lab.write("x.txt", "a\n");
    lab.run(&["--only", "raw", "--only", "right", "--only", "both"]).success();
}

fn without_digests(text: &str) -> String {
    let is_digest = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let lines = text.lines().map(|line| {
        line.split(' ').map(|word| if is_digest(word) { "…" } else { word }).collect::<Vec<_>>().join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn force_runs_what_it_names_and_nothing_outside_of_the_selection() {
    let lab = diamond();
    lab.run(&[]).success();
    assert_eq!(lab.run(&["--force=l*t"]).success().stages("done"), ["last", "left"]);
    assert_eq!(lab.run(&["--force", "--only", "both"]).success().stages("done"), ["both"]);
}

#[test]
fn force_of_a_stage_that_is_not_selected_is_an_error() {
    let lab = diamond();
    let said = lab.run(&["--until", "left", "--force=right"]).ends_with_code(2);
    assert!(said.stderr.contains("`--force=right` names no stage that is selected"), "{}", said.stderr);
    assert!(said.stderr.contains("add `--until right`"), "{}", said.stderr);
    lab.run(&["--until", "left", "--force=r*"]).success();
}

#[test]
fn a_name_or_pattern_that_nothing_matches_is_an_error_with_the_nearest_name() {
    let lab = diamond();
    for option in ["--only", "--from", "--until"] {
        let said = lab.run(&[option, "riht"]).ends_with_code(2);
        assert!(said.stderr.contains(&format!("`{option} riht`")), "{}", said.stderr);
        assert!(said.stderr.contains("did you mean `right`?"), "{}", said.stderr);
    }
    let said = lab.run(&["--force=x*"]).ends_with_code(2);
    assert!(said.stderr.contains("its stages are `raw`, `left`"), "{}", said.stderr);
    let said = lab.run(&["--only", "[a"]).ends_with_code(2);
    assert!(said.stderr.contains("is not a pattern"), "{}", said.stderr);
}

#[test]
fn files_of_stages_that_are_not_needed_may_be_missing() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'echo 1 > {out.y}', outputs: [y] } }
  b: { kind: shell, in: { x: { file: later.txt } }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
  c: { kind: shell, in: { x: b }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    );
    assert!(lab.run(&["-n", "--until", "a"]).success().stdout.contains("run     a"));
    assert!(lab.pipe(&["why", "pipelines/p.yaml", "a"]).success().stdout.contains("will run"));
    assert_eq!(lab.run(&["--only", "a"]).success().stages("done"), ["a"]);
    assert_eq!(lab.run(&["--until", "a"]).success().stages("cached"), ["a"]);
    for more in [&[][..], &["-n"], &["--only", "b"], &["--only", "c"], &["--from", "a", "--until", "c"]] {
        let said = lab.run(more);
        let lacks = said.stderr.contains("file `later.txt` does not exist") && said.code == Some(2);
        assert!(lacks || more.contains(&"a"), "{more:?}: {}", said.stderr);
    }
    assert!(lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr.contains("later.txt"));
    lab.write("later.txt", "2");
    lab.run(&[]).success();
}

#[test]
fn a_stage_without_its_option_is_told_which_there_are() {
    let lab = diamond();
    insta::assert_snapshot!(lab.run(&["left"]).ends_with_code(2).stderr, @"
    x `left` follows the pipeline file without an option
    help: `--until left` runs it with all it needs, `--only left` it alone, `--force=left` it even
          if it has a result
    ");
    insta::assert_snapshot!(lab.run(&["--force", "left"]).ends_with_code(2).stderr, @"
    x `left` follows the pipeline file without an option
    help: write `--force=left`: without `=` all that is selected is forced
    ");
    insta::assert_snapshot!(lab.run(&["pipelines/q.yaml"]).ends_with_code(2).stderr, @"
    x `pipelines/q.yaml` follows the pipeline file without an option
    help: each file is a run of its own
    ");
    assert!(!lab.path("runs.db").exists(), "no run was begun");
}
