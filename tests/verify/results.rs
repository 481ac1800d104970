//! `pipe verify RUN` computes recorded results again and says what differs.

use rustix::process::Signal;

use crate::lab::{EXPERIMENT, Lab, SWEEP, Said, send, wait_until};

/// The line of `stage` with what is said below it.
#[track_caller]
fn told(said: &Said, stage: &str) -> String {
    let is_its = |line: &str| {
        let mut words = line.split("  ").map(str::trim).filter(|word| !word.is_empty());
        !line.starts_with(' ') && words.nth(1) == Some(stage)
    };
    let from = said.stdout.lines().position(is_its);
    let from = from.unwrap_or_else(|| panic!("nothing about {stage}:\n{}{}", said.stdout, said.stderr));
    let lines: Vec<&str> = said.stdout.lines().skip(from).collect();
    let more = lines[1..].iter().take_while(|line| line.starts_with(' ')).count();
    let words = lines[..=more].iter().flat_map(|line| line.split_whitespace());
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_experiment_comes_out_identical_and_nothing_that_is_kept_changes() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    let before = (
        lab.files("cache/v1/objects"),
        lab.files("cache/v1/results"),
        lab.ask::<i64>("SELECT count(*) FROM execution"),
    );
    let said = lab.pipe(&["verify", "@last"]).success();
    assert_eq!(
        said.stdout.lines().filter(|line| line.starts_with("identical")).count(),
        12,
        "{}",
        said.stdout
    );
    assert!(said.stderr.contains("run_1: 12 identical"), "{}", said.stderr);
    let after = (
        lab.files("cache/v1/objects"),
        lab.files("cache/v1/results"),
        lab.ask::<i64>("SELECT count(*) FROM execution"),
    );
    assert_eq!(before, after);
    for folder in ["scratch", "verify"] {
        assert_eq!(std::fs::read_dir(lab.path("cache/v1").join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[test]
fn a_cached_stage_is_verified_by_what_the_record_says_not_by_todays_file() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "tokens_test"]).success();
    lab.run(&["--until", "tokens_test", "--set", "tokens_test.max_tokens=64"]).success();
    lab.write("pipelines/p.yaml", "stages: { other: { kind: sample_reviews } }");
    for run in ["run_1", "run_2"] {
        let said = lab.pipe(&["verify", run]).success();
        assert!(said.stderr.contains(&format!("{run}: 2 identical")), "{}{}", said.stdout, said.stderr);
    }
    let said = lab.pipe(&["verify", "run_1", "tokens_tset"]).ends_with_code(2);
    assert!(
        said.stderr.contains("no stage `tokens_tset`") && said.stderr.contains("tokens_test"),
        "{}",
        said.stderr
    );
}

/// A stage that writes `state.txt`, which it does not declare.
const UNDECLARED: &str = "stages:
  read:
    kind: shell
    with: { command: 'cp state.txt {out.table}; cp metrics.txt {metrics}', outputs: [table], metrics: m.json }
";

#[test]
fn a_difference_is_told_with_its_place_and_a_tolerance_forgives_small_ones() {
    let lab = Lab::new(UNDECLARED);
    lab.write("state.txt", "id,score\na,0.5\nb,0.25\n");
    lab.write("metrics.txt", "{\"accuracy\": 0.75}");
    lab.run(&[]).success();
    lab.pipe(&["verify", "@last"]).success();

    lab.write("state.txt", "id,score\na,0.5\nb,0.2500001\n");
    lab.write("metrics.txt", "{\"accuracy\": 0.7500002}");
    let said = lab.pipe(&["verify", "@last"]).ends_with_code(1);
    assert_eq!(
        told(&said, "read"),
        "different read output table: line 3, `score`: `0.25` → `0.2500001`, largest difference 1.0e-7 \
         metric accuracy: 0.75 → 0.7500002, largest difference 2.0e-7"
    );
    let said = lab.pipe(&["verify", "@last", "--tolerance", "1e-6"]).success();
    assert_eq!(told(&said, "read"), "equal read within 2.0e-7");

    let json = lab.pipe(&["verify", "@last", "--json"]).ends_with_code(1).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["stages"][0]["verdict"], "different");
    assert_eq!(json["stages"][0]["differences"][0]["output"], "table");

    std::fs::remove_file(lab.path("state.txt")).unwrap();
    let said = lab.pipe(&["verify", "@last"]).ends_with_code(1);
    assert!(
        told(&said, "read").starts_with("failed read the command ended with exit code 1"),
        "{}",
        said.stdout
    );
}

#[test]
fn what_would_be_another_computation_is_not_checked_and_says_why() {
    let lab = Lab::new(
        "stages:
  read:
    kind: shell
    in: { text: { file: a.txt } }
    with: { command: 'cat {in.text} > {out.text}', outputs: [text] }
  again:
    kind: shell
    in: { text: read }
    with: { command: 'echo $MODE | cat - {in.text} > {out.text}', outputs: [text], env: [MODE] }
  reviews: { kind: sample_reviews, with: { train: 2, test: 2 } }
  bad: { kind: shell, in: { text: again }, with: { command: 'false' } }
",
    );
    lab.write("a.txt", "one\n");
    lab.run(&["-j", "1"]).ends_with_code(1);
    lab.write("a.txt", "two\n");
    for object in lab.files("cache/v1/objects") {
        if std::fs::read_to_string(&object).unwrap() == "one\n" {
            std::fs::remove_file(object).unwrap();
        }
    }
    let database = rusqlite::Connection::open(lab.path("runs.db")).unwrap();
    let older = "UPDATE execution SET hashed = replace(hashed, '\"version\":', '\"version\":9') WHERE kind = 'sample_reviews'";
    assert_eq!(database.execute(older, []).unwrap(), 1);
    let said = lab.pipe(&["verify", "@last"]).success();
    let read = told(&said, "read");
    assert!(read.starts_with("not checked read in.text: ") && read.ends_with("(a.txt)"), "{read}");
    assert_eq!(told(&said, "again"), "not checked again in.text: missing in the cache");
    assert!(told(&said, "reviews").starts_with("not checked reviews kind version: 9"), "{}", said.stdout);
    assert_eq!(told(&said, "bad"), "not checked bad it has no result in this run");
    assert!(said.stderr.contains("run_1: 4 not checked"), "{}", said.stderr);

    lab.write("a.txt", "one\n");
    lab.run(&["--until", "again"]).success();
    let mut command = lab.command(&["verify", "@last", "again"]);
    let output = command.env("MODE", "fast").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("not checked  again  with.env.MODE: null → fast"), "{stdout}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let lab = Lab::new(
        "stages: { wait: { kind: shell, with: { command: 'echo > {out.x}; if test -e slow; then touch begun; sleep 60; fi', outputs: [x] } } }",
    );
    lab.run(&[]).success();
    lab.write("slow", "");
    let mut verify = lab.command(&["verify", "@last"]).spawn().unwrap();
    wait_until("the stage", || lab.path("begun").exists());
    send(Signal::INT, i32::try_from(verify.id()).unwrap());
    assert_eq!(verify.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(lab.path("cache/v1/verify")).unwrap().count(), 0);
    assert_eq!(lab.run(&[]).success().stages("cached"), ["wait"]);
}

#[test]
fn a_stage_that_changes_its_input_is_found_and_leaves_no_damage() {
    let lab = Lab::new(
        "stages:
  data: { kind: shell, with: { command: 'echo good > {out.o}', outputs: [o] } }
  fix:
    kind: shell
    in: { x: data }
    with: { command: 'cat {in.x} > {out.o}; if test -e careless; then sed -i s/good/evil/ {in.x}; fi', outputs: [o] }
",
    );
    lab.run(&[]).success();
    lab.write("careless", "");
    let said = lab.pipe(&["verify", "@last", "fix"]).ends_with_code(1);
    assert!(
        told(&said, "fix").starts_with("failed fix input `x` was changed in the cache while"),
        "{}",
        said.stdout
    );
    assert!(lab.files("cache/v1/objects").iter().all(|file| std::fs::read(file).unwrap() == b"good\n"));
    let said = lab.pipe(&["reproduce", "run_1", "--force"]).ends_with_code(1);
    assert!(said.stderr.contains("input `x` (`data.o`) was changed in the cache"), "{}", said.stderr);
}

#[test]
fn a_stage_of_the_file_means_all_of_its_matrix() {
    let lab = Lab::new(SWEEP);
    lab.run(&[]).success();
    let checked = |stage: &str| lab.pipe(&["verify", "@last", stage]).success().stdout.lines().count();
    assert_eq!((checked("train"), checked("train[rank=4]"), checked("both[rank=4]")), (4, 2, 1));
    insta::assert_snapshot!(lab.pipe(&["verify", "@last", "train[rank=5]"]).ends_with_code(2).stderr, @"
    x run_1 has no stage `train[rank=5]`
    help: `train` has rank 4, 16; lr 0.001, 0.01
    ");
}
