//! Which runs are listed, in which order, with which columns.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::lab::{Lab, stage};

fn pipe(lab: &Lab, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.env("PIPE_ROOT", lab.folder.path()).args(words).output().expect("`pipe` starts")
}

fn said(lab: &Lab, words: &[&str]) -> String {
    let output = pipe(lab, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Three runs of ranks 4, 8 and 16; the second is `best`.
fn ranks() -> Lab {
    let mut lab = Lab::new();
    for (rank, accuracy) in [(4, 0.5), (8, 0.9), (16, 0.75)] {
        let eval = stage("eval", "score", json!({ "rank": rank })).metric("accuracy", accuracy);
        let train = stage("lora", "train", json!({ "rank": rank, "mode": "low", "deep": { "er": rank } }));
        lab.run(&[train, eval]);
    }
    said(&lab, &["tag", "2", "best"]);
    lab
}

/// The numbers of the runs that meet `condition`.
fn meet(lab: &Lab, condition: &str) -> Vec<String> {
    let json: Value = serde_json::from_str(&said(lab, &["runs", "--json", "--where", condition])).unwrap();
    let runs = json.as_array().unwrap().iter();
    runs.map(|run| run["run"].as_str().unwrap().trim_start_matches("run_").to_owned()).collect()
}

#[test]
fn a_condition_asks_for_metrics_parameters_and_what_a_run_is() {
    let lab = ranks();
    for (condition, runs) in [
        ("eval.accuracy > 0.7 and lora.rank <= 8", vec!["2"]),
        ("eval.accuracy > 0.7 or lora.rank = 4", vec!["3", "2", "1"]),
        ("not (lora.rank = 8)", vec!["3", "1"]),
        ("lora.rank = 4 or lora.rank = 8 and eval.accuracy < 0.1", vec!["1"]),
        ("lora.deep.er != 8", vec!["3", "1"]),
        ("lora.mode = low and lora.mode != 3", vec![]),
        ("lora.mode ~ OW and lora.rank >= 16", vec!["3"]),
        ("tag = best", vec!["2"]),
        ("tag != best", vec!["3", "1"]),
        ("status = done and seed = 1337 and pipeline = 'toy'", vec!["3", "2", "1"]),
        ("run > 1 and run != run_3", vec!["2"]),
        ("started = 2020-03-01 and started < 2020-03-01T14:30", vec!["2", "1"]),
        ("lora.mode != 1 and eval.accuracy = x", vec![]),
    ] {
        assert_eq!(meet(&lab, condition), runs, "{condition}");
    }
}

#[test]
fn a_condition_that_cannot_be_read_is_shown_with_a_caret() {
    let lab = ranks();
    let refused = |condition: &str| {
        let output = pipe(&lab, &["runs", "--where", condition]);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{condition}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused("lora.rank > 8 and statsu = done");
    assert!(
        text.contains("there is no column `statsu`") && text.contains("did you mean `status`?"),
        "{text}"
    );
    let caret = text.lines().find(|line| line.contains('^')).unwrap();
    let line = text.lines().find(|line| line.contains("lora.rank > 8 and")).unwrap();
    assert_eq!(caret.find('^'), line.find("statsu"), "{text}");
    for (condition, wanted) in [
        ("", "a column is missing"),
        ("lora.rank", "compared with nothing"),
        ("lora.rank >", "a value is missing"),
        ("(lora.rank > 1", "a `)` is missing"),
        ("lora.rank > 1 tag = x", "`tag` is not expected here"),
        ("tag = 'x", "a value is missing"),
        (&"(".repeat(5000), "nested too deep"),
    ] {
        assert!(refused(condition).contains(wanted), "{condition}");
    }
}

#[test]
fn runs_are_sorted_and_columns_are_chosen() {
    let lab = ranks();
    let chosen =
        ["runs", "--sort", "-eval.accuracy", "--columns", "lora.rank,eval.accuracy,tag", "--limit", "2"];
    insta::assert_snapshot!(said(&lab, &chosen), @"
    RUN    lora.rank  eval.accuracy  tag
    run_2          8        0.90000  best
    run_3         16        0.75000  –
    the first 2; `pipe runs --all` lists every run
    ");
    let csv = said(&lab, &["runs", "--columns", "lora.rank,eval.accuracy", "--sort", "lora.rank", "--csv"]);
    assert_eq!(csv, "run,lora.rank,eval.accuracy\nrun_1,4,0.5\nrun_2,8,0.9\nrun_3,16,0.75\n");
    let csv = said(&lab, &["runs", "--tag", "best", "--csv"]);
    assert!(csv.starts_with("run,status,started,pipeline,profile"), "{csv}");
    assert!(csv.lines().count() == 2 && csv.contains("run_2,done,2020-03-01T14:00:00"), "{csv}");
}

#[test]
fn a_removed_run_is_out_of_sight_until_it_is_restored() {
    let lab = ranks();
    let listed = |lab: &Lab| meet(lab, "run > 0");
    assert_eq!(
        said(&lab, &["rm", "@last", "best"]),
        "run_3 is removed; `pipe restore run_3` brings it back\nrun_2 is removed; `pipe restore run_2` brings it back\n"
    );
    assert_eq!(listed(&lab), ["1"]);
    assert!(said(&lab, &["show", "@last"]).starts_with("run_1"));
    assert!(said(&lab, &["show", "best"]).starts_with("run_2"), "its tag stays its own");
    assert!(said(&lab, &["runs", "--removed"]).contains("run_3"));
    assert_eq!(said(&lab, &["restore", "best", "3"]), "run_2 is back\nrun_3 is back\n");
    assert_eq!(said(&lab, &["restore", "2"]), "run_2 was not removed\n");
    assert_eq!(listed(&lab), ["3", "2", "1"]);
    assert!(said(&lab, &["show", "best"]).starts_with("run_2"));
}

#[test]
fn metrics_and_parameters_that_no_run_has_are_refused_with_what_was_meant() {
    let lab = ranks();
    for (words, wanted) in [
        (["--where", "lora.rnk = 3"], ["no run has `lora.rnk`", "did you mean `lora.rank`?"]),
        (["--sort", "-eval.acuracy"], ["no run has `eval.acuracy`", "did you mean `eval.accuracy`?"]),
        (["--columns", "lra.rank"], ["no run has `lra.rank`", "did you mean `lora.rank`?"]),
        (["--columns", "vars.rank"], ["no run has `vars.rank`", "did you mean `lora.rank`?"]),
        (["--columns", "deep.er"], ["no run has `deep.er`", "did you mean `lora.deep.er`?"]),
        (["--columns", "lora.deep.r"], ["no run has `lora.deep.r`", "did you mean `lora.deep.er`?"]),
        (["--where", "status = don"], ["no run can have the status `don`", "did you mean `done`?"]),
        (["--where", "status != x"], ["the status `x`", "running, done, failed, interrupted, killed"]),
    ] {
        let output = pipe(&lab, &[&["runs"], &words[..]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        wanted.iter().for_each(|wanted| assert!(text.contains(wanted), "`{wanted}` is not in\n{text}"));
    }
    said(&lab, &["runs", "--where", "status ~ don"]);
    said(&lab, &["runs", "--columns", "lora.deep"]);
    let empty = Lab::new();
    said(&empty, &["runs", "--columns", "lora.rank"]);
}

#[test]
fn a_value_is_read_as_what_its_column_holds() {
    let mut lab = Lab::new();
    let mut start = Lab::start("toy.yaml");
    start.profiles = vec!["1".into()];
    lab.run_as(start, &[stage("a", "x", json!({ "on": true, "off": false }))]);
    said(&lab, &["note", "1", "seen 007 times"]);
    for (condition, is_met) in [
        ("profile = 1", true),
        ("profile = 1.0", false),
        ("note ~ 007", true),
        ("seed = '1337' and run = run_1", true),
        ("a.on = true and a.off != true", true),
        ("a.on = false", false),
    ] {
        assert_eq!(!meet(&lab, condition).is_empty(), is_met, "{condition}");
    }
    for (condition, wanted) in [
        ("seconds > 1s", "`seconds` is a number, and `1s` is none"),
        ("seconds > 1s", "write a time in seconds: `seconds > 90`"),
        ("run = baseline", "write a run as `run = 12` or `run >= run_12`"),
        ("cached != 'all'", "`cached` is a number, and `all` is none"),
    ] {
        let output = pipe(&lab, &["runs", "--where", condition]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(wanted), "`{wanted}` is not in\n{text}");
    }
}

#[test]
fn profiles_and_settings_are_asked_for_one_by_one_and_are_lists_in_json() {
    let mut lab = Lab::new();
    let mut start = Lab::start("toy.yaml");
    (start.profiles, start.sets) = (vec!["demo".into(), "short".into()], vec!["lora.rank=16".into()]);
    let lora = stage("lora", "train", json!({ "rank": 16, "lr": 0.5 }));
    lab.run_as(start, std::slice::from_ref(&lora));
    lab.run(&[lora]);
    said(&lab, &["tag", "1", "best"]);
    for (condition, runs) in [
        ("profile = demo", vec!["1"]),
        ("profile = short and profile ~ em", vec!["1"]),
        ("profile != demo", vec!["2"]),
        ("set = 'lora.rank=16'", vec!["1"]),
        ("set ~ rank", vec!["1"]),
        ("profile = dem", vec![]),
    ] {
        assert_eq!(meet(&lab, condition), runs, "{condition}");
    }
    let columns = "profile,set,tag,lora.rank,lora.lr";
    let told: Value = serde_json::from_str(&said(&lab, &["runs", "--json", "--columns", columns])).unwrap();
    assert_eq!(
        told[1]["columns"],
        json!({ "profile": ["demo", "short"], "set": ["lora.rank=16"], "tag": ["best"], "lora.rank": 16, "lora.lr": 0.5 })
    );
    insta::assert_snapshot!(said(&lab, &["runs", "--columns", columns]), @"
    RUN    profile     set           tag   lora.rank  lora.lr
    run_2  –           –             –            16  0.50000
    run_1  demo short  lora.rank=16  best         16  0.50000
    ");
}

#[test]
fn an_empty_list_says_why_it_is_empty() {
    let lab = ranks();
    assert_eq!(said(&lab, &["runs", "--limit", "0"]), "the first 0; `pipe runs --all` lists every run\n");
    said(&lab, &["rm", "1", "2", "3"]);
    let removed =
        "every run is removed; `pipe runs --removed` lists them, `pipe restore RUN` brings one back";
    assert_eq!(said(&lab, &["runs"]), format!("{removed}\n"));
    let output = pipe(&lab, &["show", "@last"]);
    let text = String::from_utf8(output.stderr).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("`pipe runs --removed` lists them"), "{text}");
    assert_eq!(said(&Lab::new(), &["runs"]), "no run is recorded yet; start with `pipe run FILE`\n");
}

#[test]
fn an_empty_note_is_refused_and_a_note_is_shown_as_it_was_written() {
    let lab = ranks();
    assert_eq!(pipe(&lab, &["note", "1", " "]).status.code(), Some(2));
    said(&lab, &["note", "1", "warm", "up", "\u{1b}[31m"]);
    // What would colour a terminal is shown instead.
    assert!(said(&lab, &["show", "1"]).contains("warm up \\u{1b}[31m ("));
    assert!(said(&lab, &["runs"]).contains("“warm up \\u{1b}[31m”"));
}
