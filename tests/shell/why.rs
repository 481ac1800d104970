//! What is said of why a stage runs, or does not: by `why`, by `run -n` and by `run`.

use std::fs;

use serde_json::Value;

use crate::lab::Lab;

const COUNT: &str = "stages:
  count:
    kind: shell
    in: { data: { dir: data }, words: { glob: 'words/*.txt' }, note: { file: note.txt } }
    with:
      command: 'cat {in.data}/* {in.words}/words/* {in.note} | head -c {params.most} > {out.n}'
      params: { most: 9 }
      outputs: [n]
      env: [COUNT_HOW]
  last: { kind: shell, in: { n: count }, with: { command: 'cp {in.n} {out.n}', outputs: [n] } }
";

fn lab() -> Lab {
    let lab = Lab::new(COUNT);
    for folder in ["data", "words"] {
        fs::create_dir(lab.path(folder)).unwrap();
    }
    for file in ["data/a.txt", "data/b.txt", "words/a.txt", "note.txt"] {
        lab.write(file, file);
    }
    lab.run(&[]).success();
    lab
}

fn why(lab: &Lab, stage: &str) -> String {
    lab.pipe(&["why", "pipelines/p.yaml", stage]).success().stdout
}

#[test]
fn files_of_folders_and_patterns_are_named_and_so_is_the_run_they_changed_since() {
    let lab = lab();
    lab.run(&[]).success();
    lab.write("data/b.txt", "other");
    lab.write("data/c.txt", "new");
    fs::remove_file(lab.path("words/a.txt")).unwrap();
    lab.write("words/b.txt", "new");
    insta::assert_snapshot!(why(&lab, "count"), @"
    count: will run
      in.data: changed b.txt; added c.txt in data
      in.words: added words/b.txt; removed words/a.txt in words/*.txt
      since run_2
    ");
    insta::assert_snapshot!(why(&lab, "last"), @"
    last: runs if its inputs change
      takes from count, which has to run
    ");
    let said = "in.data: changed b.txt; added c.txt in data; \
                in.words: added words/b.txt; removed words/a.txt in words/*.txt, since run_2";
    assert!(lab.run(&["-n"]).success().stdout.contains(said), "{}", lab.run(&["-n"]).stdout);
    let plan: Value = serde_json::from_str(&lab.run(&["-n", "--json"]).success().stdout).unwrap();
    assert_eq!(plan[0]["reasons"][0]["files"]["changed"]["first"][0], "b.txt");
    assert_eq!(plan[0]["reasons"][0]["since"], "run_2");
    let ran = lab.run(&[]).success();
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
}

#[test]
fn a_file_a_parameter_and_a_variable_are_named_with_their_places() {
    let lab = lab();
    lab.write("note.txt", "x");
    let told = why(&lab, "count");
    assert!(told.starts_with("count: will run\n  in.note: ") && told.contains(" (note.txt)\n"), "{told}");
    lab.write("note.txt", "note.txt");
    lab.edit("most: 9", "most: 8");
    insta::assert_snapshot!(why(&lab, "count"), @"
    count: will run
      with.params.most: 9 → 8 (pipelines/p.yaml:7:17)
      since run_1
    ");
    lab.edit("most: 8", "most: 9");
    let command = |how: &str| {
        let mut command = lab.command(&["why", "pipelines/p.yaml", "count"]);
        String::from_utf8(command.env("COUNT_HOW", how).output().unwrap().stdout).unwrap()
    };
    insta::assert_snapshot!(command("fast"), @"
    count: will run
      environment COUNT_HOW: unset → fast (pipelines/p.yaml:9:7)
      since run_1
    ");
}

#[test]
fn a_stage_that_need_not_run_says_which_run_made_its_result_and_when_and_on_what() {
    let lab = lab();
    let told = why(&lab, "count");
    assert!(
        told.starts_with("count: cached\n  has the result of run_1\n  computed just now in 0."),
        "{told}"
    );
    let json = lab.pipe(&["why", "pipelines/p.yaml", "count", "--json"]).success().stdout;
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["execution"]["run"], "run_1");
    assert!(told["execution"]["started"].is_string(), "{json}");
}

#[test]
fn a_value_that_goes_back_has_the_result_of_the_run_that_had_it() {
    let lab = lab();
    lab.run(&["--set", "count.params.most=8"]).success();
    lab.run(&["--set", "count.params.most=7"]).success();
    let back = lab.run(&["--set", "count.params.most=8"]).success();
    assert!(back.stderr.contains("count  has the result of run_2\n"), "{}", back.stderr);
    let back = lab.run(&[]).success();
    assert!(back.stderr.contains("count  has the result of run_1\n"), "{}", back.stderr);
    let on = lab.run(&["-n", "--set", "count.params.most=6"]).success();
    assert!(on.stdout.contains("with.params.most: 9 → 6"), "the latest run counts: {}", on.stdout);
}

#[test]
fn a_stage_that_wrote_the_same_bytes_is_said_to_have_stopped_the_change() {
    let lab = lab();
    lab.edit("head -c {params.most}", "head -c {params.most} | cat");
    let ran = lab.run(&[]).success();
    assert_eq!(ran.stages("done"), ["count"]);
    let said = "last   count ran but wrote the same bytes; has the result of run_1\n";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let reasons: String = lab.ask("SELECT reasons FROM stage WHERE run = 2 AND stage = 'last'");
    assert!(reasons.contains(r#"{"reason":"same_bytes","stages":["count"]}"#), "{reasons}");
    let shown = lab.pipe(&["show", "run_2"]).success().stdout;
    assert!(shown.contains("last  count ran but wrote the same bytes; has the result of run_1"), "{shown}");
}

#[test]
fn a_renamed_stage_is_compared_with_what_it_was() {
    let lab = lab();
    lab.edit("last:", "copy:");
    assert!(why(&lab, "copy").contains(", as stage last\n"), "{}", why(&lab, "copy"));
    lab.edit("cp {in.n}", "cat {in.n} >");
    let told = why(&lab, "copy");
    assert!(told.contains("with.command: cp {in.n} {out.n} → cat {in.n} > {out.n}"), "{told}");
}

#[test]
fn names_of_files_are_kept_for_results_that_are_kept() {
    let lab = lab();
    let kept = || lab.files("cache/v1/manifests").len();
    assert_eq!(kept(), 2, "of the folder and of the pattern");
    lab.write("data/b.txt", "other");
    lab.run(&[]).success();
    assert_eq!(kept(), 3);
    lab.pipe(&["gc", "--keep", "1"]).success();
    assert_eq!(kept(), 2);
    lab.write("data/a.txt", "other");
    assert!(why(&lab, "count").contains("in.data: changed a.txt in data"), "{}", why(&lab, "count"));
}

/// What `why` says of stage `work` whose `in` and `with` were changed from the first to the second.
fn why_changed(before: [&str; 2], after: [&str; 2]) -> String {
    let pipeline = |[inputs, with]: [&str; 2]| {
        format!("stages:\n  work: {{ kind: shell, in: {{ {inputs} }}, with: {{ {with}, outputs: [o] }} }}\n")
    };
    let lab = Lab::new(&pipeline(before));
    lab.write("note.txt", "a note");
    lab.run(&[]).success();
    lab.write("pipelines/p.yaml", pipeline(after));
    why(&lab, "work")
}

#[test]
fn a_long_command_is_shown_around_what_differs() {
    let numbers = (1..=100).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
    let with = |rate: &str| format!("command: 'echo {numbers} --lr {rate} {numbers} > {{out.o}}'");
    insta::assert_snapshot!(why_changed(["", &with("0.1")], ["", &with("0.2")]), @"
    work: will run
      with.command: …9 100 --lr 0.1 1 2 3 4 5 6 7 8 9 10 11… → …9 100 --lr 0.2 1 2 3 4 5 6 7 8 9 10 11… (pipelines/p.yaml:2:42)
      since run_1
    ");
}

#[test]
fn a_number_that_became_a_text_is_told_by_its_quotes() {
    let with = |x: &str| format!("command: 'echo {{params.x}} > {{out.o}}', params: {{ x: {x} }}");
    insta::assert_snapshot!(why_changed(["", &with("1")], ["", &with("'1'")]), @r#"
    work: will run
      with.params.x: 1 → "1" (pipelines/p.yaml:2:90)
      since run_1
    "#);
}

#[test]
fn a_first_parameter_is_one_change() {
    let (without, with) = ("command: 'echo > {out.o}'", "command: 'echo > {out.o}', params: { x: 1 }");
    insta::assert_snapshot!(why_changed(["", without], ["", with]), @"
    work: will run
      with.params.x: none → 1 (pipelines/p.yaml:2:79)
      since run_1
    ");
}

#[test]
fn inputs_that_came_and_went_are_named() {
    let with = "command: 'echo > {out.o}'";
    let note = "n: { file: note.txt }";
    insta::assert_snapshot!(why_changed([note, with], ["", with]), @"
    work: will run
      input `n` was removed
      since run_1
    ");
    insta::assert_snapshot!(why_changed(["", with], [note, with]), @"
    work: will run
      input `n` was added (note.txt)
      since run_1
    ");
}

#[test]
fn a_variable_that_is_newly_declared_is_one_change_also_when_it_is_not_set() {
    let (without, with) = ("command: 'echo > {out.o}'", "command: 'echo > {out.o}', env: [PIPE_TEST_UNSET]");
    insta::assert_snapshot!(why_changed(["", without], ["", with]), @"
    work: will run
      environment PIPE_TEST_UNSET: not declared → unset (pipelines/p.yaml:2:69)
      since run_1
    ");
}

#[test]
fn a_result_of_a_history_that_is_gone_is_from_elsewhere() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, with: { command: 'echo {params.x} > {out.o}', outputs: [o], params: { x: 1 } } } }",
    );
    for x in ["1", "2", "3"] {
        lab.run(&["--set", &format!("a.params.x={x}")]).success();
    }
    fs::remove_file(lab.path("runs.db")).unwrap();
    let elsewhere = "a  has a result from elsewhere";
    let three = ["--set", "a.params.x=3"];
    let plan = lab.run(&["--set", "a.params.x=3", "-n"]).success().stdout;
    assert!(plan.contains(elsewhere), "{plan}");
    for x in ["4", "5", "6"] {
        lab.run(&["--set", &format!("a.params.x={x}")]).success();
    }
    for more in [&three[..], &three[..]] {
        let said = lab.run(more).success();
        assert!(said.stderr.contains(elsewhere), "{}", said.stderr);
    }
    let said = lab.pipe(&[&["why", "pipelines/p.yaml", "a"], &three[..]].concat()).success().stdout;
    assert!(said.starts_with("a: cached\n  has a result from elsewhere\n  computed just now in "), "{said}");
    let json = lab.pipe(&[&["why", "pipelines/p.yaml", "a", "--json"], &three[..]].concat()).success().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["execution"]["run"], serde_json::Value::Null);
}

#[test]
fn a_value_that_came_by_a_variable_is_told_by_it() {
    let lab = Lab::new(
        "vars: { n: 1, how: -v }
seed: 1
profiles:
  big: { vars: { n: 100 } }
stages:
  s:
    kind: shell
    with:
      command: 'echo {params.n} {params.both} ${vars.how} > {out.x}'
      params: { n: '${vars.n}', both: ['${vars.n}', 2] }
      outputs: [x]
",
    );
    lab.run(&[]).success();
    let why = |more: &[&str]| lab.pipe(&[&["why", "pipelines/p.yaml", "s"], more].concat()).success().stdout;
    insta::assert_snapshot!(why(&["-p", "big"]), @"
    s: will run
      with.params.both: [1,2] → [100,2] (pipelines/p.yaml:10:33, vars.n)
      with.params.n: 1 → 100 (pipelines/p.yaml:4:18, vars.n)
      since run_1
    ");
    insta::assert_snapshot!(why(&["--set", "vars.n=3"]), @"
    s: will run
      with.params.both: [1,2] → [3,2] (pipelines/p.yaml:10:33, vars.n)
      with.params.n: 1 → 3 (--set vars.n=3)
      since run_1
    ");
    assert!(why(&["--set", "s.params.n=3"]).contains("with.params.n: 1 → 3 (--set s.params.n=3)\n"));
    lab.edit("n: 1, how: -v", "n: 1, how: -q");
    insta::assert_snapshot!(why(&[]), @"
    s: will run
      with.command: …o {params.n} {params.both} -v > {out.x} → …o {params.n} {params.both} -q > {out.x} (pipelines/p.yaml:9:7, vars.how)
      since run_1
    ");
}
