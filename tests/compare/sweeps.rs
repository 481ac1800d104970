//! After a sweep: which combination is best, and whether by more than seeds give.

use serde_json::{Value, json};

use crate::lab::{EXPERIMENT, Lab};

/// Accuracy 0.04 or 0.08 by rank, more by a thousandth for each seed; the loss is equal but for seeds.
const TRAIN: &str = r#"set -e
rank=$1; lr=$2; seed=$3
if [ "$rank" = "$FAILS" ]; then exit 3; fi
echo "$rank $seed" > "$4"
awk "BEGIN { printf \"{\\\"accuracy\\\": %.4f, \\\"loss\\\": %.4f, \\\"rows\\\": %d, \\\"tensor\\\": {\\\"w\\\": 1}}\", \
  $rank / 100 + $seed / 1000, 1 + (($rank + $seed) % 3) / 1000, $rank }" > "$5"
"#;
const SWEEP: &str = r#"stages:
  train:
    kind: shell
    matrix: { rank: [4, 8], lr: [0.001], seed: [1, 2, 3] }
    in: { script: { file: train.sh } }
    seed: "${matrix.seed}"
    with:
      command: sh {in.script} {params.rank} {params.lr} {seed} {out.model} {metrics}
      params: { rank: "${matrix.rank}", lr: "${matrix.lr}" }
      env: [FAILS]
      outputs: [model]
      metrics: metrics.json
      better: { accuracy: higher, loss: lower }
  eval:
    kind: shell
    in: { model: train }
    with:
      command: "read rank seed < {in.model}; echo \"{\\\"f1\\\": $rank.$seed}\" > {metrics}"
      metrics: metrics.json
      better: { f1: higher }
"#;

fn lab(pipeline: &str) -> Lab {
    let lab = Lab::new(pipeline);
    lab.write("train.sh", TRAIN);
    lab
}

fn swept(pipeline: &str) -> Lab {
    let lab = lab(pipeline);
    lab.run(&[]).success();
    lab
}

fn compared(lab: &Lab, arguments: &[&str]) -> String {
    lab.pipe(&[&["compare", "@last"], arguments].concat()).success().stdout
}

/// What is said with lines that were broken put together.
fn said_of(lab: &Lab) -> String {
    compared(lab, &[]).replace("\n ", " ")
}

fn sweep(lab: &Lab, stage: &str) -> Value {
    let found: Value = serde_json::from_str(&compared(lab, &["--json"])).unwrap();
    let sweeps = found["sweeps"].as_array().unwrap();
    sweeps.iter().find(|sweep| sweep["stage"] == stage).unwrap_or_else(|| panic!("{found:#}")).clone()
}

fn metric(sweep: &Value, name: &str) -> Value {
    let metrics = sweep["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == name).unwrap().clone()
}

/// The names of the axes along which only seeds differ.
fn seed_axes(sweep: &Value) -> Vec<&str> {
    let axes = sweep["axes"].as_array().unwrap().iter();
    axes.filter(|axis| axis["is_seed"] == true).map(|axis| axis["name"].as_str().unwrap()).collect()
}

#[track_caller]
fn is_close(found: &Value, wanted: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - wanted).abs() < 1e-9 * wanted.abs().max(1e-3), "{found}, wanted {wanted}");
}

#[test]
fn seeds_are_folded_and_the_best_is_measured_against_the_others() {
    let lab = swept(SWEEP);
    let said = compared(&lab, &[]);
    insta::assert_snapshot!(said.split_once("\n\n").unwrap().1, @"
    train: 2 combinations, mean ± sd over `seed` (n = 3)
    rank  lr              accuracy ↑             loss ↓   rows
    4     0.001    0.04200 ± 0.00100  1.00100 ± 0.00100  4 ± 0
    8     0.001  * 0.08200 ± 0.00100  1.00100 ± 0.00100  8 ± 0

    train.accuracy: rank=8,lr=0.001 is best, 0.08200 ± 0.00100 (3); better than
     rank=4,lr=0.001 (+0.04000, p 1.0e-6)

    eval: 2 combinations, mean ± sd over `seed` (n = 3)
    rank  lr                    f1 ↑
    4     0.001    4.20000 ± 0.10000
    8     0.001  * 8.20000 ± 0.10000

    eval.f1: rank=8,lr=0.001 is best, 8.20000 ± 0.10000 (3); better than
     rank=4,lr=0.001 (+4.00000, p 1.0e-6)

    * best of its column
    p: Welch's t-test over seeds
    1 metric of bins and tensors hidden; `--all` shows every one
    ");
    let train = sweep(&lab, "train");
    assert_eq!(train["rows"][1]["at"], json!({ "lr": "0.001", "rank": "8" }));
    let instances = [1, 2, 3].map(|seed| format!("train[rank=8,lr=0.001,seed={seed}]"));
    assert_eq!(train["rows"][1]["instances"], json!(instances));
    let accuracy = metric(&train, "accuracy");
    assert_eq!(accuracy["values"][0], json!([0.041, 0.042, 0.043]));
    is_close(&accuracy["spreads"][1]["mean"], 0.082);
    is_close(&accuracy["spreads"][1]["sd"], 0.001);
    assert_eq!((&accuracy["spreads"][1]["n"], &accuracy["best"]), (&json!(3), &json!([1])));
    assert_eq!(accuracy["lead"][1], Value::Null);
    let lead = &accuracy["lead"][0];
    is_close(&lead["difference"], 0.04);
    // t = 0.04 / (0.001 · √(2/3)) = 48.99 with 4 degrees of freedom.
    assert!((lead["p"].as_f64().unwrap() / 1.039e-6 - 1.0).abs() < 0.01, "{lead}");
    assert_eq!(lead["p"], lead["holm_p"], "of two rows one pair is tested");
    assert_eq!(lead["verdict"], "better");
}

#[test]
fn the_best_of_many_is_corrected_for_all_pairs() {
    let lab = swept(&SWEEP.replace("[4, 8]", "[4, 6, 8]"));
    let train = sweep(&lab, "train");
    let accuracy = metric(&train, "accuracy");
    let p = |row: usize, p: &str| accuracy["lead"][row][p].as_f64().unwrap();
    // The farthest of three is the smallest p of three pairs, the nearer one counts as the second of them.
    assert!((p(0, "holm_p") / p(0, "p") - 3.0).abs() < 1e-9, "{accuracy:#}");
    assert!((p(1, "holm_p") / p(1, "p") - 2.0).abs() < 1e-9, "{accuracy:#}");
    let said = said_of(&lab);
    assert!(said.contains("better than each of the 2 others (p ≤ "), "{said}");
    assert!(said.contains("corrected by Holm for all pairs of combinations"), "{said}");
}

#[test]
fn what_comes_from_stages_with_seeds_is_folded_over_them() {
    let lab = swept(SWEEP);
    let eval = sweep(&lab, "eval");
    assert_eq!(seed_axes(&eval), ["seed"]);
    let f1 = metric(&eval, "f1");
    assert_eq!(f1["values"], json!([[4.1, 4.2, 4.3], [8.1, 8.2, 8.3]]));
    assert_eq!(f1["best"], json!([1]));
}

#[test]
fn an_axis_along_which_more_than_seeds_differs_is_no_seed_axis() {
    // The seed is a parameter: nothing says that it is one.
    let pipeline = SWEEP.replace("    seed: \"${matrix.seed}\"\n", "").replace("{seed}", "{params.seed}");
    let lab = swept(&pipeline.replace("{ rank: \"$", "{ seed: \"${matrix.seed}\", rank: \"$"));
    for stage in ["train", "eval"] {
        let sweep = sweep(&lab, stage);
        assert_eq!(seed_axes(&sweep), [""; 0], "{stage}");
        assert_eq!(sweep["rows"].as_array().unwrap().len(), 6, "{stage}");
    }
    let said = said_of(&lab);
    assert!(said.contains("train: one seed a combination, so nothing says what chance may give"), "{said}");
    assert!(said.contains("train.accuracy: rank=8,lr=0.001,seed=3 is best, 0.08300\n"), "{said}");
    assert!(!said.contains(" p "), "{said}");
}

#[test]
fn over_two_axes_of_seeds_nothing_is_tested() {
    let pipeline = SWEEP
        .replace("    kind: shell\n    in: { model: train }\n", "    kind: shell\n    matrix: { draw: [7, 8] }\n    seed: \"${matrix.draw}\"\n    in: { model: train }\n")
        .replace("$rank.$seed}", "$rank.$seed\\\"{seed}\\\"}");
    let lab = swept(&pipeline);
    let eval = sweep(&lab, "eval");
    assert_eq!(seed_axes(&eval), ["seed", "draw"]);
    let f1 = metric(&eval, "f1");
    assert_eq!((&f1["spreads"][0]["n"], &f1["lead"]), (&json!(6), &json!([null, null])));
    let said = said_of(&lab);
    assert!(said.contains("eval: over several axes of seeds executions share seeds"), "{said}");
    assert!(said.contains("p: Welch's t-test over seeds\n"), "that is of train:\n{said}");
}

#[test]
fn instances_that_failed_are_rows_without_figures() {
    let lab = lab(&SWEEP.replace("[4, 8]", "[4, 8, 16]"));
    let mut run = lab.command(&["run", "pipelines/p.yaml", "--keep-going"]);
    assert_eq!(run.env("FAILS", "8").output().unwrap().status.code(), Some(1));
    let train = sweep(&lab, "train");
    assert_eq!(train["rows"][1]["outcomes"], json!(["failed", "failed", "failed"]));
    assert_eq!(metric(&train, "accuracy")["spreads"][1], Value::Null);
    let said = said_of(&lab);
    assert!(said.contains("\n8     0.001  0\n"), "{said}");
    assert!(said.contains("train: of 9 instances 3 failed\n"), "{said}");
    assert!(said.contains("eval: of 9 instances 3 skipped\n"), "{said}");
}

#[test]
fn an_execution_that_instances_share_counts_once() {
    // The seed is drawn by `train`, but what it writes for `eval` is the same for all.
    let lab = lab(SWEEP);
    lab.write("train.sh", TRAIN.replace("$rank $seed", "$rank 5"));
    lab.run(&[]).success();
    let f1 = metric(&sweep(&lab, "eval"), "f1");
    assert_eq!((&f1["values"][0], &f1["spreads"][0]["n"]), (&json!([4.5, 4.5, 4.5]), &json!(1)));
    let said = said_of(&lab);
    assert!(said.contains("; not tested against rank=4,lr=0.001: "), "{said}");
}

#[test]
fn a_sweep_is_carried_by_every_form() {
    let lab = swept(SWEEP);
    let csv = compared(&lab, &["--csv"]);
    assert!(csv.starts_with("what,stage,name,run_1\n"), "{csv}");
    assert!(csv.contains("\nsweep,\"train[rank=4,lr=0.001]\",accuracy mean,0.042\n"), "{csv}");
    assert!(csv.contains("\nsweep,\"train[rank=8,lr=0.001]\",accuracy best,1\n"), "{csv}");
    assert!(csv.contains("\nsweep,\"train[rank=4,lr=0.001]\",accuracy holm_p,0.000001"), "{csv}");
    let markdown = compared(&lab, &["--md"]);
    assert!(markdown.contains("**train: 2 combinations"), "{markdown}");
    assert!(markdown.contains("| 8 | 0.001 | * 0.08200 ± 0.00100 |"), "{markdown}");
    let html = compared(&lab, &["--html"]);
    assert!(html.contains("<h1>run_1</h1>") && html.contains(">* 0.08200 ± 0.00100</td>"), "{html}");
}

#[test]
fn a_report_has_the_same_table() {
    let lab = swept(SWEEP);
    lab.pipe(&["report", "@last", "--out", "report.html"]).success();
    let page = std::fs::read_to_string(lab.path("report.html")).unwrap();
    let table =
        &page[page.find("<h2 id=\"sweeps\">Combinations").unwrap()..page.find("<h2 id=\"metrics\"").unwrap()];
    assert!(table.contains("train: 2 combinations, mean ± standard deviation over seed"), "{table}");
    assert!(table.contains("<strong>0.08200 ± 0.00100</strong>"), "{table}");
    let beaten = "<td class=\"number worse\" title=\"p 1.0e-6 against the best\">0.04200 ± 0.00100 *</td>";
    assert!(table.contains(beaten), "{table}");
    assert!(!table.contains("tensor.w"), "{table}");
    assert!(page.contains("24 metrics of single stages of a matrix, or with no better direction"));
}

#[test]
fn a_run_says_where_its_combinations_are_compared() {
    let lab = lab(SWEEP);
    let hints = |more: &[&str]| {
        let said = lab.run(more).success().stderr;
        said.lines().filter(|line| line.contains("compare")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(hints(&[]), ["  compare the combinations of `train` and `eval`: `pipe compare run_1`"]);
    assert_eq!(hints(&[]), ["  compare the combinations of `train` and `eval`: `pipe compare run_2`"]);
    assert_eq!(hints(&["--only=eval"]), ["  compare the combinations of `eval`: `pipe compare run_3`"]);
}

#[test]
fn what_is_no_result_is_hidden_and_what_shows_no_difference_is_told_in_one_sentence() {
    let more = r#"{\\\"rows\\\": 7, \\\"d\\\": $((rank + 9 * seed)), \\\"e\\\": $((9 * seed - rank)), \\\"g\\\": $((rank + seed * seed)), "#;
    let pipeline = SWEEP
        .replace(r#"{\\\"f1\\\": "#, &format!(r#"{more}\\\"f1\\\": "#))
        .replace("f1: higher", "f1: higher, d: lower, e: higher, g: higher");
    let said = compared(&swept(&pipeline), &[]);
    let (_, eval) = said.split_once("eval: ").unwrap();
    insta::assert_snapshot!(eval, @"
    2 combinations, mean ± sd over `seed` (n = 3)
    rank  lr          d ↓       e ↑                 f1 ↑                 g ↑
    4     0.001  * 22 ± 9  * 14 ± 9    4.20000 ± 0.10000   8.66667 ± 4.04145
    8     0.001    26 ± 9    10 ± 9  * 8.20000 ± 0.10000  * 12.667 ± 4.04145

    eval.f1: rank=8,lr=0.001 is best, 8.20000 ± 0.10000 (3); better than
     rank=4,lr=0.001 (+4.00000, p 1.0e-6)
    eval: no difference shown between the best and any other (p ≥ 0.29): d, e, g

    * best of its column
    p: Welch's t-test over seeds
    1 metric of bins and tensors hidden; `--all` shows every one
    1 metric equal throughout hidden; `--all` shows every one
    ");
}

#[test]
fn programs_whose_metrics_have_no_direction_are_told_how_to_give_one() {
    let lab = swept(&SWEEP.replace("      better: { f1: higher }\n", ""));
    let said = said_of(&lab);
    assert!(
        said.contains("eval: `better: { accuracy: higher }` in the file would let one be called best"),
        "{said}"
    );
    assert!(!said.contains("train: `better:"), "{said}");
}

#[test]
fn methods_of_single_combinations_are_in_the_table_of_all() {
    let pipeline = EXPERIMENT
        .replace("  lora:\n", "  lora:\n    matrix: { seed: [1, 2] }\n    seed: '${matrix.seed}'\n");
    let lab = swept(&pipeline);
    let said = said_of(&lab);
    assert!(said.contains("eval: 1 combination, mean ± sd over `seed` (n = 2)\n"), "{said}");
    assert!(!said.contains("eval[seed=1].accuracy"), "{said}");
    assert!(said.contains(" of single stages of a matrix hidden; `--all` shows every one"), "{said}");
    assert!(said.contains("eval[seed=2]: no difference shown, lora less fine_tuned"), "{said}");
    assert!(compared(&lab, &["--all"]).contains("eval[seed=1].accuracy"));
}

#[test]
fn metrics_of_tensors_are_hidden_unless_all_are_asked_for() {
    let lab = swept(SWEEP);
    let said = said_of(&lab);
    assert!(!said.contains("tensor.w"), "{said}");
    assert!(said.contains("1 metric of bins and tensors hidden; `--all` shows every one"), "{said}");
    assert!(compared(&lab, &["--all"]).contains("tensor.w"));
}

#[test]
fn sweeps_of_two_runs_are_compared_instance_by_instance() {
    let lab = swept(SWEEP);
    lab.write("train.sh", TRAIN.replace("/ 100", "/ 50"));
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    for rank in [4, 8] {
        for seed in [1, 2, 3] {
            let name = format!("train[rank={rank},lr=0.001,seed={seed}].accuracy  ↑");
            let row = said.lines().find(|line| line.starts_with(&name));
            assert!(row.is_some_and(|row| row.ends_with("better")), "no `{name}` in\n{said}");
        }
    }
    let widest = said.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns:\n{said}");
}

#[test]
fn instances_that_one_run_lacks_are_told_together_and_are_no_others_renamed() {
    let lab = swept(SWEEP);
    lab.edit("[4, 8]", "[4, 16]");
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    insta::assert_snapshot!(said.split("\n\n").nth(1).unwrap(), @"
    WHAT DIFFERED                     run_1  run_2
    stage train[rank=8,lr=0.001] ×3   yes    –
    stage eval[rank=8,lr=0.001] ×3    yes    –
    stage train[rank=16,lr=0.001] ×3  –      yes
    stage eval[rank=16,lr=0.001] ×3   –      yes
    ");
    lab.edit("rank: [4, 16], lr: [0.001], seed: [1, 2, 3]", "rank: [4], lr: [0.001], seed: [1, 2]");
    lab.run(&[]).success();
    lab.edit("seed: [1, 2]", "seed: [1, 4]");
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "3", "4"]).success().stdout;
    assert!(said.contains("stage train[rank=4,lr=0.001,seed=2]  yes    –\n"), "{said}");
    assert!(said.contains("stage train[rank=4,lr=0.001,seed=4]  –      yes\n"), "{said}");
    // Also where it is the only stage that could have been renamed.
    lab.write(
        "pipelines/p.yaml",
        SWEEP.split("  eval:").next().unwrap().replace("rank: [4, 8]", "rank: [4]"),
    );
    for seeds in ["1, 2", "1, 4"] {
        let set = format!("--set=stages.train.matrix.seed=[{seeds}]");
        lab.run(&[&set]).success();
    }
    let said = lab.pipe(&["compare", "5", "6"]).success().stdout;
    assert!(said.contains("stage train[rank=4,lr=0.001,seed=2]  yes    –\n"), "{said}");
}

#[test]
fn long_names_of_instances_are_told_apart() {
    let long = |text: &str| text.replace("accuracy", "accuracy_of_all_of_the_words");
    let lab =
        lab(&long(SWEEP).replace("{ rank: [4, 8], lr: [0.001]", "{ lr: [0.000123456789], rank: [4, 8]"));
    lab.write("train.sh", long(TRAIN));
    lab.run(&[]).success();
    lab.write("train.sh", long(TRAIN).replace("/ 100", "/ 50"));
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
    let names =
        said.lines().filter(|line| line.ends_with("better")).map(|line| line.split("  ").next().unwrap());
    let names: Vec<&str> = names.collect();
    let different: std::collections::BTreeSet<&&str> = names.iter().collect();
    assert_eq!((names.len(), different.len()), (6, 6), "{said}");
}
