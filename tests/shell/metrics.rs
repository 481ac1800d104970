//! The metrics that a command writes are all kept as they are, or the stage fails and says where.

use crate::lab::Lab;

/// A project whose stage `h` writes the file `written` as its metrics, which it calls `name`.
fn lab(name: &str, written: &str) -> Lab {
    let lab = Lab::new(&format!(
        "stages: {{ h: {{ kind: shell, in: {{ written: {{ file: written }} }},
          with: {{ command: 'cp {{in.written}} {{metrics}}', metrics: {name} }} }} }}"
    ));
    lab.write("written", written);
    lab
}

/// What a run of it has measured at steps, as `metric@step=value`.
fn kept(written: &str) -> String {
    let lab = lab("m.csv", written);
    lab.run(&[]).success();
    lab.ask::<Option<String>>(
        "SELECT group_concat(metric || ifnull('@' || step, '') || '=' || value, ' ')
         FROM (SELECT * FROM metric WHERE step IS NOT NULL ORDER BY step, metric)",
    )
    .unwrap_or_default()
}

/// What the run says that fails.
fn refused(name: &str, written: &str) -> String {
    let failed = lab(name, written).run(&["--progress", "plain"]).ends_with_code(1).stderr;
    let lines = failed.lines().skip_while(|line| !line.trim_start().starts_with("failed h")).skip(1);
    lines.map(str::trim).take_while(|line| !line.starts_with("at ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_table_of_steps_keeps_every_line_at_its_step() {
    assert_eq!(kept("step,loss\n5,0.7\n"), "h.loss@5=0.7");
    assert_eq!(kept("Step,loss\n5,0.7\n6,0.5\n"), "h.loss@5=0.7 h.loss@6=0.5");
    let both = "h.epoch@100=1.0 h.loss@100=1.0 h.epoch@200=1.0 h.loss@200=0.5";
    assert_eq!(kept("epoch,step,loss\n1,100,1\n1,200,.5\n"), both);
    assert_eq!(kept("step,epoch,loss\n100,1,1\n200,1,.5\n"), both);
    assert_eq!(kept("step,loss,valid\n5,0.7,\n5,,0.9\n"), "h.loss@5=0.7 h.valid@5=0.9");
}

#[test]
fn epochs_that_are_no_steps_are_a_metric_and_lines_are_counted() {
    assert_eq!(kept("epoch,loss\n1,0.5\n"), "h.loss@1=0.5");
    assert_eq!(
        kept("epoch,loss\n0.25,4\n0.5,3\n1.0,2\n"),
        "h.epoch@1=0.25 h.loss@1=4.0 h.epoch@2=0.5 h.loss@2=3.0 h.epoch@3=1.0 h.loss@3=2.0"
    );
}

#[test]
fn steps_end_in_a_final_value_that_runs_can_be_asked_for() {
    let lab = lab("m.json", "{\"loss\": [3, NaN, 2.5], \"valid\": [1, Infinity]}");
    lab.run(&[]).success();
    let listed = lab.pipe(&["runs", "--columns", "h.loss,h.valid"]).success().stdout;
    insta::assert_snapshot!(listed, @"
    RUN     h.loss  h.valid
    run_1  2.50000  –
    ");
}

#[test]
fn what_would_be_lost_is_an_error_that_names_the_line() {
    insta::assert_snapshot!(refused("m.csv", "step,loss\n-1,4\n0,3\n"), @"
    line 2 of the metrics in `m.csv` has `-1` in column `step`, which is no whole number from 0
    help: write whole numbers from 0, each value at a step of its own; or call the column otherwise: then lines are counted as steps
    ");
    insta::assert_snapshot!(refused("m.csv", "step,loss\n1,4\n2,3\n1,2\n"), @"
    lines 2 and 4 of the metrics in `m.csv` both give `loss` at step 1
    help: write whole numbers from 0, each value at a step of its own; or call the column otherwise: then lines are counted as steps
    ");
    insta::assert_snapshot!(refused("m.csv", "step,loss\n1,0.5\n2,oops\n"), @"
    line 3 of the metrics in `m.csv` has `oops` in column `loss`, which is no number
    help: write a number such as `0.5` or `1e-3`, `nan` if it is undefined, or nothing if there is none
    ");
    insta::assert_snapshot!(refused("m.csv", "name,value\nx,1\nx,2\n"), @"
    lines 2 and 3 of the metrics in `m.csv` both give `x`
    help: write each metric once, or its steps in a column `step`
    ");
    insta::assert_snapshot!(refused("m.csv", ""), @r#"
    no metrics are in `m.csv`
    help: write JSON such as `{"accuracy": 0.5}`, or `{}` if there are none; or CSV: a line of names, numbers below it
    "#);
    insta::assert_snapshot!(refused("m.json", "null"), @r#"
    no metrics are in `m.json`
    help: write JSON such as `{"accuracy": 0.5}`, or `{}` if there are none; or CSV: a line of names, numbers below it
    "#);
    insta::assert_snapshot!(refused("m.json", "[1, 2, 3]"), @r#"
    the metrics in `m.json` are a list without a name
    help: give the list a name: `{"loss": [3, 2.5]}`
    "#);
    insta::assert_snapshot!(refused("m.json", r#"{"loss": 0.5, "f1": 1, "loss": 0.4}"#), @"
    the metrics in `m.json` give `loss` a second time at line 1 column 29
    help: write each metric once; the values of steps are a list
    ");
    insta::assert_snapshot!(refused("m.json", r#"{"x": {"y": 1}, "x.y": 2}"#), @"
    two values of the metrics in `m.json` are called `x.y`
    help: a dot in a name leads into a map: name one otherwise
    ");
}

#[test]
fn a_file_of_metrics_that_is_not_written_is_named_as_the_pipeline_does() {
    let lab = lab("m.json", "{}");
    lab.run(&[]).success();
    lab.edit("cp {in.written} {metrics}", "true {metrics}");
    let failed = lab.run(&[]).ends_with_code(1).stderr;
    for part in ["ended without writing its metrics `m.json`", "must write a file to `{metrics}`"] {
        assert!(failed.contains(part), "{failed}");
    }
    assert!(!failed.contains("attempt"), "{failed}");
    lab.edit("true {metrics}", "mkfifo {metrics}");
    let failed = lab.run(&[]).ends_with_code(1).stderr;
    assert!(failed.contains("the metrics `m.json` are no file"), "{failed}");
}

#[test]
fn a_failure_of_the_metrics_has_no_exit_code_and_is_shown_without_control_characters() {
    let lab = lab("m.csv", "a\u{7},b\n1,2\nx\ry,3\n");
    lab.run(&[]).ends_with_code(1);
    assert_eq!(lab.ask::<Option<i64>>("SELECT exit_code FROM stage"), None);
    lab.edit("cp {in.written} {metrics}", "printf \"50\\\\r\\\\033[1m100\\\\n\"; exit 3 # {metrics}");
    lab.run(&[]).ends_with_code(1);
    let shown = lab.pipe(&["show", "@last"]).success().stdout;
    assert!(shown.contains("failed `h`: the command ended with exit code 3; its last lines:\n50"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
}

#[test]
fn control_characters_in_the_name_of_a_metric_are_shown() {
    let lab = lab("m.json", r#"{"a\nb\u001b[1m": 1}"#);
    lab.run(&[]).success();
    let shown = lab.pipe(&["show", "@last"]).success().stdout;
    assert!(shown.contains(r"  a\nb\u{1b}[1m "), "{shown}");
}

/// A project whose stage `h` writes an output `curve.csv` and a file `m.json` as its metrics.
fn two_files(curve: &str, last: &str) -> Lab {
    let lab = Lab::new(
        "stages:
  h:
    kind: shell
    in: { curve: { file: curve }, last: { file: last } }
    with:
      command: 'cp {in.curve} {out.curve}; cp {in.last} {metrics}'
      outputs: [curve.csv]
      metrics: [curve.csv, m.json]
",
    );
    lab.write("curve", curve);
    lab.write("last", last);
    lab
}

#[test]
fn metrics_are_read_from_several_files() {
    let lab = two_files("epoch,loss,rate\n1,4,1\n2,3,1\n", "{\"accuracy\": 0.5, \"loss\": 2}");
    lab.run(&[]).success();
    let columns = "h.accuracy,h.loss,h.rate";
    // A final value that is given goes before that of the last step.
    insta::assert_snapshot!(lab.pipe(&["runs", "--columns", columns]).success().stdout, @"
    RUN    h.accuracy  h.loss  h.rate
    run_1     0.50000       2       1
    ");
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM metric WHERE step IS NOT NULL"), 4);
}

#[test]
fn a_metric_that_two_files_give_is_an_error() {
    let failed = two_files("epoch,loss\n1,4\n", "{\"loss\": [3]}").run(&[]).ends_with_code(1).stderr;
    assert!(failed.contains("the metrics in `m.json` give `loss` a second time"), "{failed}");
    let lab = two_files("", "");
    lab.edit("outputs: [curve.csv]", "outputs: [curve]");
    let told = lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr;
    assert!(told.contains("`curve.csv` and `m.json` are no outputs, and `{metrics}` is one file"), "{told}");
    assert!(told.contains("p.yaml:8:"), "{told}");
}

#[test]
fn outputs_are_kept_where_metrics_cannot_be_read() {
    let lab = two_files("epoch,loss\n1,oops\n", "{}");
    let failed = lab.run(&[]).ends_with_code(1).stderr;
    let (_, said) = failed.split_once("its outputs are in `").expect(&failed);
    let (left, until) = said.split_once('`').unwrap();
    assert!(until.starts_with(" until it is tried again or `pipe gc`"), "{failed}");
    let kept = lab.path(left).join("curve.csv");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "epoch,loss\n1,oops\n");
    lab.pipe(&["gc", "--keep", "10"]).success();
    assert!(!kept.exists());
    lab.run(&[]).ends_with_code(1);
    assert!(kept.exists());
    lab.write("curve", "epoch,loss\n1,2\n");
    lab.run(&[]).success();
}

#[test]
fn the_document_of_a_run_has_the_final_metrics_of_its_stages() {
    let lab = lab("m.json", "{\"loss\": [3, 2], \"auc\": null}");
    // Those of a cached stage, too.
    for _ in 0..2 {
        let document: serde_json::Value =
            serde_json::from_str(&lab.run(&["--json"]).success().stdout).unwrap();
        assert_eq!(document["stages"][0]["metrics"], serde_json::json!({ "auc": null, "loss": 2.0 }));
    }
}
