//! The figures of the reference come out of `compare` itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::lab::{Lab, Said};

/// The reference's folder of metrics: `PIPE_REFERENCE`, or the copy in the tests of the stages.
fn reference() -> PathBuf {
    let given = std::env::var_os("PIPE_REFERENCE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let copy = || Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/tests/reference");
    given.unwrap_or_else(copy).join("metrics")
}

/// A project whose files `a.csv` and `b.csv` are the predictions of the reference, which `eval` takes
/// by these inputs.
fn project(inputs: &str) -> (Lab, Value) {
    let lab = Lab::new("");
    for name in ["a", "b"] {
        let csv = fs::read(reference().join(format!("predictions_{name}.csv"))).unwrap();
        lab.write(&format!("{name}.csv"), csv);
    }
    let expected = fs::read(reference().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let bins = expected["a"]["bins"].as_array().unwrap().iter();
    let bounds: Vec<&str> = bins.map(|bin| bin["bin"].as_str().unwrap().trim_matches(['(', ']'])).collect();
    let limits = bounds.iter().map(|bin| bin.split(", ").next().unwrap());
    let limits: Vec<&str> = limits.chain(bounds.last().unwrap().split(", ").nth(1)).collect();
    let with = format!("{{ edges: [{}] }}", limits.join(", "));
    lab.write(
        "pipelines/p.yaml",
        format!("stages:\n  eval: {{ kind: evaluate, in: {inputs}, with: {with} }}\n"),
    );
    (lab, expected)
}

const TWO_METHODS: &str = "{ a: { file: a.csv }, b: { file: b.csv } }";

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap()
}

#[track_caller]
fn close(what: &str, found: &Value, wanted: &Value) {
    match (found.as_f64(), wanted.as_f64()) {
        (Some(found), Some(wanted)) => {
            assert!((found - wanted).abs() <= 1e-9, "{what}: {found}, wanted {wanted}");
        }
        _ => assert_eq!(found, wanted, "{what}"),
    }
}

/// Compares every figure of one classifier with what `value` gives for a metric's name, and
/// returns how many there were.
fn figures_agree(wanted: &Value, value: &dyn Fn(&str) -> Value) -> usize {
    let mut count = 0;
    let mut agree = |name: &str, wanted: &Value| {
        close(name, &value(name), wanted);
        count += 1;
    };
    for (name, wanted) in wanted.as_object().unwrap() {
        match name.as_str() {
            "bins" => {
                for bin in wanted.as_array().unwrap() {
                    let interval = bin["bin"].as_str().unwrap().trim_matches(['(', ']']).replace(", ", "-");
                    for (figure, wanted) in bin.as_object().unwrap().iter().filter(|(name, _)| *name != "bin")
                    {
                        agree(&format!("bin.{interval}.{figure}"), wanted);
                    }
                }
            }
            "accuracy_ci95_wilson" => {
                agree("accuracy_low", &wanted[0]);
                agree("accuracy_high", &wanted[1]);
            }
            "beyond_last_bin" => agree("outside_bins", wanted),
            figure => agree(figure, wanted),
        }
    }
    count
}

fn evidence_agrees(evidence: &Value, wanted: &Value) {
    close("only a", &evidence["only_a"], &wanted["a_right_b_wrong"]);
    close("only b", &evidence["only_b"], &wanted["a_wrong_b_right"]);
    close("p", &evidence["mcnemar_exact_p"], &wanted["mcnemar_exact_p"]);
    close("difference", &evidence["difference"], &wanted["accuracy_difference_b_minus_a"]);
}

#[test]
fn every_figure_of_the_reference_comes_out_of_comparing_the_methods_of_one_run() {
    let (lab, expected) = project(TWO_METHODS);
    lab.run(&[]).success();
    let found = json(&lab.pipe(&["compare", "@last", "--json"]).success());
    for (at, method) in ["a", "b"].iter().enumerate() {
        assert_eq!(found["columns"][at], *method);
        let value = |name: &str| {
            let rows = found["metrics"].as_array().unwrap();
            let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}"));
            row["values"][at].clone()
        };
        assert!(figures_agree(&expected[*method], &value) > 40);
    }
    evidence_agrees(&found["evidence"][0], &expected["paired"]);
}

#[test]
fn every_figure_of_the_reference_comes_out_of_comparing_two_runs_also_without_the_cache() {
    let (lab, expected) = project("{ m: { file: a.csv } }");
    lab.run(&[]).success();
    lab.edit("a.csv", "b.csv");
    lab.run(&[]).success();
    fs::remove_dir_all(lab.path("cache")).unwrap();
    fs::remove_file(lab.path("a.csv")).unwrap();
    fs::remove_file(lab.path("b.csv")).unwrap();
    let found = json(&lab.pipe(&["compare", "1", "2", "--json"]).success());
    for (at, method) in ["a", "b"].iter().enumerate() {
        let value = |name: &str| {
            let rows = found["metrics"].as_array().unwrap();
            let name = format!("m.{name}");
            let row = rows.iter().find(|row| row["name"] == *name).unwrap_or_else(|| panic!("no {name}"));
            row["values"][at].clone()
        };
        assert!(figures_agree(&expected[*method], &value) > 40);
    }
    evidence_agrees(&found["evidence"][0], &expected["paired"]);
}

#[test]
fn every_form_carries_the_same_numbers() {
    let (lab, _) = project(TWO_METHODS);
    lab.run(&[]).success();
    let plain = lab.pipe(&["compare", "1"]).success().stdout;
    insta::assert_snapshot!(without_times(&plain), @r"
    RUN    STATUS  WHEN      PIPELINE  TAGS

    METRIC                       a        b  DIFFERENCE
    eval.accuracy       ↑  0.85600  0.92000    +0.06400  better
    eval.accuracy_high  ↑  0.87640  0.93525    +0.05885  better
    eval.accuracy_low   ↑  0.83288  0.90153    +0.06866  better
    eval.auc            ↑  0.94983  0.98444    +0.03461  better
    eval.f1             ↑  0.85455  0.91903    +0.06448  better
    eval.fn             ↓       77       46         -31  better
    eval.fp             ↓       67       34         -33  better
    eval.precision      ↑  0.86327  0.93033    +0.06706  better
    eval.recall         ↑  0.84600  0.90800    +0.06200  better
    eval.tn             ↑      433      466         +33  better
    eval.tp             ↑      423      454         +31  better

    eval by length  ACCURACY           PRECISION            RECALL
                           a        b          a        b        a        b
    (0, 256]         0.85491  0.92668    0.85531  0.93485  0.84713  0.91401
    (256, 512]       0.85121  0.91349    0.86986  0.93151  0.84106  0.90066
    (512, 768]       0.88889  0.88889    0.92000  0.88889  0.85185  0.88889
    (768, 1024]      0.91667  0.91667    0.83333  0.83333        1        1
    (1024, 1280]     0.66667        1          1        1  0.50000        1

    SAME REVIEWS  A  B  BOTH RIGHT  ONLY A  ONLY B  NEITHER
    eval          a  b         788      68     132       12

    eval: b is better than a: +6.40 points (95 % +3.70 … +9.20), p = 7.1e-6, on
     1,000 reviews

    p: exact McNemar test; 95 %: paired bootstrap, 10,000 resamples, seed 1337
    2 metrics equal
    40 metrics of bins and tensors hidden; `--all` shows every one
    ");
    let csv = lab.pipe(&["compare", "1", "--csv"]).success().stdout;
    assert!(csv.contains("evidence,eval,mcnemar_exact_p against a,,0.00000708652575859"), "{csv}");
    let [markdown, html] = ["--md", "--html"].map(|form| lab.pipe(&["compare", "1", form]).success().stdout);
    // Every number on the terminal is in the other forms, in the same order.
    let numbers = |text: &str| -> Vec<String> {
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_matches('.'));
        words.filter(|word| word.contains('.')).map(str::to_owned).collect()
    };
    let body = html.split("</style>").nth(1).unwrap();
    let shown = numbers(&without_times(&plain));
    assert!(shown.len() > 40, "{shown:?}");
    assert_eq!(numbers(&without_times(&markdown)), shown);
    assert_eq!(numbers(&without_times(body)), shown);
    assert!(!html.contains("http"), "it needs nothing else");
}

/// The text without the line of the run, which says when it was.
fn without_times(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("just now") && !line.contains(" ago"));
    lines.collect::<Vec<_>>().join("\n")
}
