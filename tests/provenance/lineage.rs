//! `pipe lineage`.

use std::fmt::Write;

use std::fs;

use serde_json::Value;

use crate::{
    digest, git,
    lab::{EXPERIMENT, Lab, SWEEP},
    words,
};

fn json(lab: &Lab, of: &[&str]) -> Value {
    let said = lab.pipe(&[&["lineage"], of, &["--json"]].concat()).success();
    serde_json::from_str(&said.stdout).unwrap()
}

/// The step of this stage.
fn step<'a>(lineage: &'a Value, stage: &str) -> &'a Value {
    lineage["steps"].as_array().unwrap().iter().find(|step| step["stage"] == stage).unwrap()
}

#[test]
fn a_metric_is_followed_back_to_the_files_from_outside_after_the_cache_is_gone() {
    let lab = words();
    git(&lab, &["init", "-q"]);
    git(&lab, &["add", "text.txt", "count.sh"]);
    git(&lab, &["commit", "-qm", "one"]);
    lab.run(&[]).success();
    lab.write("count.sh", "echo changed\n".to_owned() + crate::SCRIPT);
    lab.run(&[]).success();
    fs::remove_dir_all(lab.path("cache/v1")).unwrap();

    let lineage = json(&lab, &["@last", "count.lines"]);
    assert_eq!(lineage["of"], serde_json::json!({"stage": "count", "metric": ["lines", 3.0]}));
    assert_eq!(lineage["steps"].as_array().unwrap().len(), 2);
    let (count, sort) = (step(&lineage, "count"), step(&lineage, "sort"));
    assert_eq!((&count["computed_by"], &sort["computed_by"]), (&"run_2".into(), &"run_1".into()));
    assert_eq!(count["params"]["params"]["top"], 2);
    let script = &count["inputs"][0];
    assert_eq!(script["from"]["file"], "count.sh");
    assert_eq!(script["digest"], digest(&("echo changed\n".to_owned() + crate::SCRIPT)));
    let from = &count["inputs"][1]["from"]["step"];
    assert_eq!((&from["execution"], &from["port"]), (&sort["execution"], &"sorted".into()));
    assert_eq!(sort["inputs"][0]["digest"], digest("pear\napple\nplum\n"));
    let runs = lineage["runs"].as_array().unwrap();
    let dirty: Vec<&Value> = runs.iter().map(|run| &run["git"]["dirty"]).collect();
    assert_eq!(dirty, [false, true]);

    let said = lab.pipe(&["lineage", "@last", "count.lines"]).success();
    let commit = runs[0]["git"]["commit"].as_str().unwrap();
    for part in [
        "count.lines 3, of run_2",
        &format!("├─ script: file count.sh {}", &script["digest"].as_str().unwrap()[..12]),
        "└─ words: sort.sorted ",
        &format!("   └─ text: file text.txt {}", &digest("pear\napple\nplum\n")[..12]),
        "sort  shell v",
        "in run_1, ",
        &format!("commit {},", &commit[..12]),
        &format!("commit {} with uncommitted changes (patch ", &commit[..12]),
    ] {
        assert!(said.stdout.contains(part), "`{part}` is not in\n{}", said.stdout);
    }
    assert!(said.stdout.lines().all(|line| line.chars().count() <= 100), "{}", said.stdout);
}

#[test]
fn an_output_is_found_by_its_name_and_by_the_beginning_of_its_digest() {
    let lab = words();
    lab.run(&[]).success();
    let sorted = digest("apple\npear\nplum\n");
    for name in ["sort.sorted", &sorted[..8], &sorted] {
        let lineage = json(&lab, &["run_1", name]);
        assert_eq!(lineage["of"]["output"]["digest"], sorted, "{name}");
        assert_eq!(lineage["steps"].as_array().unwrap().len(), 1, "{name}");
    }
}

#[test]
fn a_stage_outside_of_the_selection_is_followed_to_the_run_that_had_it() {
    let lab = words();
    lab.run(&[]).success();
    lab.write("count.sh", "echo changed\n".to_owned() + crate::SCRIPT);
    lab.run(&["--only", "count"]).success();
    let lineage = json(&lab, &["@last", "count"]);
    assert_eq!(step(&lineage, "count")["computed_by"], "run_2");
    assert_eq!(step(&lineage, "sort")["computed_by"], "run_1");
}

#[test]
fn everything_that_a_result_came_from_is_a_step_once() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    let lineage = json(&lab, &["run_1", "eval.lora.accuracy"]);
    assert_eq!(lineage["steps"].as_array().unwrap().len(), 12);
    let lineage = json(&lab, &["run_1", "lora.model"]);
    let mut stages: Vec<&str> =
        lineage["steps"].as_array().unwrap().iter().map(|step| step["stage"].as_str().unwrap()).collect();
    stages.sort_unstable();
    assert_eq!(stages, ["gpt2", "lora", "reviews", "tokens_train", "trunk_train"]);
    let dot = lab.pipe(&["lineage", "run_1", "lora.model", "--dot"]).success().stdout;
    assert!(dot.starts_with("digraph lineage {\n") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches(" -> ").count(), 5, "{dot}");
}

#[test]
fn what_the_run_does_not_have_is_refused_with_what_may_be_meant() {
    let lab = words();
    lab.run(&[]).success();
    let refused = |name: &str| lab.pipe(&["lineage", "run_1", name]).ends_with_code(2).stderr;
    assert!(refused("count.line").contains("did you mean `count.lines`?"), "{}", refused("count.line"));
    assert!(refused("0000000000").contains("run_1 has no metric, output or stage `0000000000`"));
    lab.edit("sort {in.text}", "false");
    lab.run(&[]).ends_with_code(1);
    let said = lab.pipe(&["lineage", "@last", "count.lines"]).ends_with_code(2).stderr;
    assert!(said.contains("stage `count` has no result in run_2, where it was skipped"), "{said}");
}

#[test]
fn a_long_chain_is_drawn_as_far_as_it_fits_and_told_whole() {
    let mut pipeline =
        "stages:\n  s0: { kind: shell, with: { command: 'echo 0 > {out.text}', outputs: [text] } }\n"
            .to_owned();
    for at in 1..30 {
        let command = format!("echo {at} | cat {{in.text}} - > {{out.text}}");
        let with = format!("with: {{ command: '{command}', outputs: [text] }}");
        writeln!(pipeline, "  s{at}: {{ kind: shell, in: {{ text: s{} }}, {with} }}", at - 1).unwrap();
    }
    let lab = Lab::new(&pipeline);
    lab.run(&[]).success();
    assert_eq!(json(&lab, &["run_1", "s29"])["steps"].as_array().unwrap().len(), 30);
    let said = lab.pipe(&["lineage", "run_1", "s29"]).success().stdout;
    assert!(said.contains("… `--json` has what is before it"), "{said}");
    assert_eq!(said.matches("  shell v").count(), 30, "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 100), "{said}");
}

#[test]
fn a_stage_without_a_result_is_said_to_have_none_and_where_to_look() {
    let lab = Lab::new(
        "stages:
  bad: { kind: shell, with: { command: 'exit 1 # {out.y}', outputs: [y] } }
  after: { kind: shell, in: { x: bad }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    );
    lab.run(&[]).ends_with_code(1);
    let said = lab.pipe(&["lineage", "run_1", "bad"]).ends_with_code(2).stderr;
    assert!(said.contains("stage `bad` has no result in run_1, where it has failed"), "{said}");
    assert!(said.contains("`pipe logs run_1 bad` shows what it said"), "{said}");
    let said = lab.pipe(&["lineage", "run_1", "after.y"]).ends_with_code(2).stderr;
    assert!(said.contains("stage `after` has no result in run_1, where it was skipped"), "{said}");
    assert!(said.contains("`pipe show run_1` says why it was not run"), "{said}");
}

#[test]
fn a_stage_that_leaves_its_input_as_it_was_does_not_hide_what_is_before_it() {
    let lab = Lab::new(
        "stages:
  load:  { kind: shell, in: { f: { file: data.txt } }, with: { command: 'cat {in.f} > {out.o}', outputs: [o] } }
  clean: { kind: shell, in: { x: load }, with: { command: 'sort -u {in.x} > {out.o}', outputs: [o] } }
  again: { kind: shell, in: { x: clean }, with: { command: 'sort -u {in.x} > {out.o}', outputs: [o] } }
",
    );
    lab.write("data.txt", "a\nb\n");
    lab.run(&[]).success();
    let said = lab.pipe(&["lineage", "@last", "again"]).success().stdout;
    let tree: Vec<&str> = said.lines().skip(2).take_while(|line| !line.is_empty()).collect();
    let short = &digest("a\nb\n")[..12];
    assert_eq!(
        tree,
        [
            "again",
            &format!("└─ x: clean.o {short}"),
            &format!("   └─ x: load.o {short}"),
            &format!("      └─ f: file data.txt {short}"),
        ]
    );
    let lineage = json(&lab, &["@last", "again"]);
    let stages: Vec<&Value> =
        lineage["steps"].as_array().unwrap().iter().map(|step| &step["stage"]).collect();
    assert_eq!(stages, ["again", "clean", "load"]);
    assert_eq!(step(&lineage, "again")["inputs"][0]["from"]["step"]["stage"], "clean");
    let dot = lab.pipe(&["lineage", "@last", "again", "--dot"]).success().stdout;
    let edges: Vec<(&str, &str)> = dot.lines().filter_map(|line| line.split_once(" -> ")).collect();
    assert_eq!(edges.len(), 3, "{dot}");
    assert!(edges.iter().all(|(from, to)| !to.starts_with(from.trim())), "{dot}");
}

#[test]
fn of_a_matrix_one_stage_is_to_be_named() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    let refused = |of: &str| lab.pipe(&["lineage", "@last", of]).ends_with_code(2).stderr;
    insta::assert_snapshot!(refused("train.loss"), @"
    x 4 stages are meant by `train.loss` in run_1
    help: name one, such as `train[rank=4,lr=0.001].loss`: `train[rank=4,lr=0.001]`,
          `train[rank=4,lr=0.01]`, `train[rank=16,lr=0.001]`, `train[rank=16,lr=0.01]`
    ");
    insta::assert_snapshot!(refused("train.los"), @"
    x run_1 has no metric, output or stage `train.los`
    help: did you mean `train.loss`?
    ");
    insta::assert_snapshot!(refused("train[rank=5].loss"), @"
    x run_1 has no metric, output or stage `train[rank=5].loss`
    help: `train` has rank 4, 16; lr 0.001, 0.01
    ");
    let lineage = json(&lab, &["@last", "both[rank=16]"]);
    assert_eq!(step(&lineage, "train[rank=16,lr=0.01]")["outputs"][0]["port"], "model");
    assert_eq!(lineage["steps"].as_array().unwrap().len(), 4);
}
