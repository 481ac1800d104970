//! CSV and JSON lines.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{finals, shown, steps, trained};

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn csv_has_every_value_that_show_tells_and_every_step_under_its_columns() {
    let lab = trained();
    let text = lab.pipe(&["export", "run_1", "--to", "csv"]).success().stdout;
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("run,stage,metric,step,value"));
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 5 && row[0] == "run_1"));
    let final_rows: BTreeMap<(&str, &str), &str> =
        rows.iter().filter(|row| row[3].is_empty()).map(|row| ((row[1], row[2]), row[4])).collect();
    let told = finals(&shown(lab, "run_1"));
    assert_eq!(final_rows.len(), told.len());
    for (stage, metric, value) in told {
        let written = final_rows[&(stage.as_str(), format!("{stage}.{metric}").as_str())];
        assert_eq!(written.parse().ok(), value, "{stage}.{metric}");
    }
    let at_steps = rows.iter().filter(|row| row[2] == "lora.loss" && !row[3].is_empty());
    let written: Vec<(u64, f64)> =
        at_steps.map(|row| (row[3].parse().unwrap(), row[4].parse().unwrap())).collect();
    assert_eq!(written, steps(lab, "lora.loss"));
}

#[test]
fn json_lines_have_the_parameters_outputs_and_values_that_show_tells() {
    let lab = trained();
    let text = lab.pipe(&["export", "run_1", "--to", "jsonl"]).success().stdout;
    let records = records(&text);
    let of = |kind: &'static str| records.iter().filter(move |it| it["record"] == kind);
    let shown = shown(lab, "run_1");
    assert_eq!(of("run").count(), 1);
    assert_eq!(of("run").next().unwrap()["started"], shown["started"]);
    let stages = shown["stages"].as_array().unwrap();
    assert_eq!(of("stage").count(), stages.len());
    let rank = of("param").find(|it| it["stage"] == "lora" && it["param"] == "rank").unwrap();
    assert_eq!(rank["value"], 8);
    for (stage, metric, value) in finals(&shown) {
        let name = format!("{stage}.{metric}");
        let found = of("metric").find(|it| it["metric"] == name && it["step"].is_null()).unwrap();
        assert_eq!(found["value"].as_f64(), value, "{name}");
    }
    for stage in stages {
        for output in stage["execution"]["outputs"].as_array().unwrap() {
            let same = |it: &&Value| it["stage"] == stage["stage"] && it["digest"] == output["digest"];
            assert!(of("artifact").any(|it| same(&it)), "{output}");
        }
    }
    let histogram = of("histogram").find(|it| it["stage"] == "lora").expect("trainings report distributions");
    let length = |field: &str| histogram[field].as_array().unwrap().len();
    assert_eq!(length("edges"), length("counts") + 1);
}

#[test]
fn several_runs_go_into_one_file_each_once() {
    let lab = trained();
    lab.run(&["--only", "eval"]).success();
    let said =
        lab.pipe(&["export", "run_1", "@last", "run_1", "--to", "csv", "--out", "out/both.csv"]).success();
    assert!(said.stdout.is_empty() && said.stderr.starts_with("wrote out/both.csv ("), "{}", said.stderr);
    let text = std::fs::read_to_string(lab.path("out/both.csv")).unwrap();
    let of = |run: &str| text.lines().filter(|line| line.starts_with(run) && line.contains(",eval.")).count();
    assert_eq!(text.lines().filter(|line| line.starts_with("run,")).count(), 1);
    assert!(of("run_1,") > 0);
    assert_eq!(of("run_1,"), of("run_2,"));
}

#[test]
fn an_unknown_run_or_form_is_refused_with_what_there_is() {
    let lab = trained();
    let said = lab.pipe(&["export", "run_99", "--to", "csv"]).ends_with_code(2);
    assert!(said.stderr.contains("there is no run `run_99`"), "{}", said.stderr);
    let said = lab.pipe(&["export", "run_1", "--to", "excel"]).ends_with_code(2);
    assert!(said.stderr.contains("csv, jsonl, tensorboard, mlflow"), "{}", said.stderr);
    let said = lab.pipe(&["export", "run_1", "--to", "csv", "--out", "runs.db/x"]).ends_with_code(2);
    assert!(said.stderr.contains("cannot write `runs.db/x`"), "{}", said.stderr);
}

#[test]
fn what_is_asked_for_with_out_brings_its_folder_and_a_disk_that_is_full_is_no_wrong_word() {
    let lab = trained();
    for (number, verb) in
        ["report 1", "export 1 --to csv", "export 1 --to jsonl", "plot 1 lora.loss", "schema"]
            .iter()
            .enumerate()
    {
        let words =
            |out: &str| -> Vec<String> { verb.split(' ').chain(["--out", out]).map(str::to_owned).collect() };
        let pipe = |words: &[String]| lab.pipe(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let file = format!("new/{number}/file.svg");
        pipe(&words(&file)).success();
        assert!(lab.path(&file).is_file(), "{verb}");
        let said = pipe(&words(&format!("{file}/x.svg"))).ends_with_code(2).stderr;
        assert!(said.contains("cannot write `new/"), "{verb}: {said}");
        if std::path::Path::new("/dev/full").exists() && !verb.starts_with("plot") {
            let said = pipe(&words("/dev/full")).ends_with_code(1).stderr;
            assert!(said.contains("cannot write `/dev/full`: No space left"), "{verb}: {said}");
        }
    }
}
