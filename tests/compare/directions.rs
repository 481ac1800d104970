//! Metrics of programs improve in the direction that the pipeline declares.

use serde_json::{Value, json};

use crate::lab::Lab;

/// A program whose metrics are these parameters.
const PROGRAM: &str = r#"stages:
  train:
    kind: shell
    with:
      command: [sh, -c, 'printf "{\"val\": {\"loss\": $1}, \"accuracy\": $2, \"rows\": 9}" > {metrics}', sh, "{params.loss}", "{params.accuracy}"]
      params: { loss: 1, accuracy: 0.5 }
      metrics: m.json
"#;
const BETTER: &str = "metrics: m.json\n      better: { '*loss': lower, accuracy: higher }\n";

/// Two runs with other metrics, of which neither is said to be better.
fn measured() -> Lab {
    let lab = Lab::new(PROGRAM);
    lab.run(&[]).success();
    lab.edit("{ loss: 1, accuracy: 0.5 }", "{ loss: 2, accuracy: 0.75 }");
    lab.run(&[]).success();
    lab
}

fn compared(lab: &Lab, arguments: &[&str]) -> String {
    lab.pipe(&[&["compare"], arguments].concat()).success().stdout
}

/// The direction and the verdicts of each metric.
fn verdicts(lab: &Lab, runs: &[&str]) -> Value {
    let said = compared(lab, &[runs, &["--json"]].concat());
    let found: Value = serde_json::from_str(&said).unwrap();
    let rows = found["metrics"].as_array().unwrap().iter();
    rows.map(|row| json!([row["name"], row["better"], row["verdicts"]])).collect()
}

#[test]
fn a_direction_that_is_declared_later_reruns_nothing_and_says_what_is_better() {
    let lab = measured();
    let before = json!([
        ["accuracy", "neither", ["equal", "changed"]],
        ["rows", "neither", ["equal", "equal"]],
        ["val.loss", "neither", ["equal", "changed"]],
    ]);
    assert_eq!(verdicts(&lab, &["1", "2"]), before);

    lab.edit("metrics: m.json\n", BETTER);
    let why = lab.pipe(&["why", "pipelines/p.yaml", "train"]).success().stdout;
    assert!(why.starts_with("train: cached\n"), "{why}");
    assert_eq!(lab.run(&[]).success().stages("cached"), ["train"]);
    let after = json!([
        ["accuracy", "higher", ["equal", "better"]],
        ["rows", "neither", ["equal", "equal"]],
        ["val.loss", "lower", ["equal", "worse"]],
    ]);
    assert_eq!(verdicts(&lab, &["1", "3"]), after);
    assert_eq!(verdicts(&lab, &["1", "2"]), before, "neither of them says anything");
    let said = compared(&lab, &["1", "3"]);
    insta::assert_snapshot!(said.split_once("\n\n").unwrap().1, @"
    WHAT DIFFERED          run_1  run_3
    train.params.accuracy  0.5    0.75
    train.params.loss      1      2

    METRIC               run_1    run_3  DIFFERENCE
    train.accuracy  ↑  0.50000  0.75000    +0.25000  better
    train.val.loss  ↓        1        2          +1  worse

    1 metric equal though executed again; `--all` shows every one
    ");
    assert!(compared(&lab, &["2", "3"]).contains("\nnothing differed\n"));
    let csv = compared(&lab, &["1", "3", "--csv"]);
    assert!(csv.contains("\nmetric,train,val.loss,1,2,1,worse\n"), "{csv}");
    let markdown = compared(&lab, &["1", "3", "--md"]);
    assert!(markdown.contains("| ↓ |") && markdown.contains("| worse |"), "{markdown}");
    assert!(compared(&lab, &["1", "3", "--html"]).contains(">worse<"));
    let shown = lab.pipe(&["show", "3"]).success().stdout;
    assert!(shown.contains("  accuracy ↑      0.75000\n"), "{shown}");
    let report = lab.pipe(&["report", "1", "3"]).success().stdout;
    assert!(report.contains("higher is better") && report.contains("lower is better"), "no direction");
}

#[test]
fn the_latest_of_the_compared_runs_that_says_anything_decides() {
    let lab = measured();
    lab.edit("metrics: m.json\n", "metrics: m.json\n      better: { accuracy: lower, val.loss: lower }\n");
    lab.run(&[]).success();
    lab.edit("{ accuracy: lower, val.loss: lower }", "{ accuracy: higher }");
    lab.run(&[]).success();
    let directions = json!([
        ["accuracy", "higher", ["equal", "worse", "equal"]],
        ["rows", "neither", ["equal", "equal", "equal"]],
        ["val.loss", "lower", ["equal", "better", "equal"]],
    ]);
    assert_eq!(verdicts(&lab, &["4", "1", "3"]), directions);
}

#[test]
fn runs_that_declare_differently_are_seeds_of_one_configuration() {
    let lab = Lab::new(&PROGRAM.replace("stages:", "seed: 1\nstages:"));
    lab.run(&[]).success();
    lab.edit("metrics: m.json\n", BETTER);
    lab.edit("seed: 1", "seed: 2");
    lab.run(&[]).success();
    let found: Value = serde_json::from_str(&compared(&lab, &["1", "2", "--json"])).unwrap();
    assert_eq!(found["groups"].as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!(found["groups"][0]["seeds"], json!([1, 2]));
}

#[test]
fn the_means_of_two_configurations_are_better_or_worse() {
    let program = r#"  sum:
    kind: shell
    in: { weights: lora }
    with:
      command: "printf '{\"sum\": %d}' $(($(cksum < {in.weights} | cut -d ' ' -f 1) % 100 + {params.more})) > {metrics}"
      params: { more: 0 }
      metrics: m.json
      better: { "s*": lower }
"#;
    let lab = Lab::new(&format!("{}{program}", crate::lab::EXPERIMENT));
    for more in ["sum.params.more=0", "sum.params.more=1000"] {
        for seed in ["seed=1", "seed=2", "seed=3"] {
            lab.run(&["--until", "sum", "--set", seed, "--set", more]).success();
        }
    }
    let runs = ["1", "2", "3", "4", "5", "6"];
    let found: Value = serde_json::from_str(&compared(&lab, &[&runs[..], &["--json"]].concat())).unwrap();
    let rows = found["group_metrics"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == "sum").unwrap();
    assert_eq!(row["better"], "lower");
    assert_eq!(row["contrasts"][1]["verdict"], "worse", "{row:#}");
}

#[test]
fn a_name_without_a_value_is_told_once() {
    let lab = Lab::new(&PROGRAM.replace("metrics: m.json\n", BETTER));
    assert!(!lab.run(&[]).success().stderr.contains("warning"));
    lab.edit("accuracy: higher }", "acuracy: higher, '*f1': higher }");
    let said = lab.run(&[]).success().stderr;
    let warning =
        "  warning `better` of train names `acuracy`, which has no final value: did you mean `accuracy`?\n";
    assert!(said.ends_with(warning), "{said}");
    assert!(!lab.run(&[]).success().stderr.contains("warning"));
}
