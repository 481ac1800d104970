//! Several seeds of one configuration are one.

use serde_json::Value;

use crate::lab::Lab;

#[test]
fn runs_that_differ_in_their_seed_alone_are_one_configuration() {
    let lab = Lab::new(crate::lab::EXPERIMENT);
    for set in ["seed=1", "seed=2", "seed=3"] {
        lab.run(&["--set", set]).success();
        lab.run(&["--set", set, "--set", "lora.rank=2"]).success();
    }
    let runs = ["1", "3", "5", "2", "4", "6"];
    let said = lab.pipe(&[&["compare", "--json"], &runs[..]].concat()).success();
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["groups"][0]["runs"], serde_json::json!(["run_1", "run_3", "run_5"]));
    assert_eq!(found["groups"][1]["seeds"], serde_json::json!([1, 2, 3]));
    let rows = |list: &str, name: &str| -> Value {
        let rows = found[list].as_array().unwrap();
        rows.iter().find(|row| row["stage"] == "eval" && row["name"] == name).unwrap().clone()
    };
    let values: Vec<f64> = serde_json::from_value(rows("metrics", "lora.auc")["values"].clone()).unwrap();
    let row = rows("group_metrics", "lora.auc");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (a, b) = values.split_at(3);
    let close = |found: &Value, wanted: f64| {
        assert!((found.as_f64().unwrap() - wanted).abs() < 1e-12, "{found}, wanted {wanted}");
    };
    close(&row["spreads"][0]["mean"], mean(a));
    close(&row["spreads"][1]["mean"], mean(b));
    close(&row["contrasts"][1]["difference"], mean(b) - mean(a));
    let squares: f64 = a.iter().map(|value| (value - mean(a)).powi(2)).sum();
    close(&row["spreads"][0]["sd"], (squares / 2.0).sqrt());
    assert_eq!(row["spreads"][0]["n"], 3);
    let said = lab.pipe(&[&["compare"], &runs[..]].concat()).success().stdout;
    assert!(said.contains("CONFIGURATION  RUNS"), "{said}");
    assert!(said.contains("lora.rank") && !said.contains("\nseed "), "{said}");
    let widest = said.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns:\n{said}");
}

#[test]
fn a_seed_that_was_run_twice_counts_once() {
    let lab = Lab::new(crate::lab::EXPERIMENT);
    for set in ["seed=1", "seed=1", "seed=2"] {
        lab.run(&["--set", set]).success();
    }
    let said = lab.pipe(&["compare", "1", "2", "3", "--json"]).success();
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let rows = found["group_metrics"].as_array().unwrap();
    let row = rows.iter().find(|row| row["stage"] == "lora" && row["name"] == "loss");
    let row = row.or_else(|| rows.iter().find(|row| row["stage"] == "lora")).unwrap();
    assert_eq!(row["spreads"][0]["n"], 2, "{row}");
}
