//! MLflow's file store. That a real MLflow reads it is checked by `tests/export/read_back.py`.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use super::{finals, shown, steps, trained};
use crate::lab::Lab;

fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The names and contents of the files of a folder.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

/// The only folder in `folder`.
fn only(folder: &Path) -> std::path::PathBuf {
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    let [only] = found.as_slice() else { panic!("one folder in {}: {found:?}", folder.display()) };
    only.clone()
}

#[test]
fn an_mlflow_run_has_the_parameters_and_values_that_show_tells_and_every_step() {
    let lab = trained();
    lab.pipe(&["export", "run_1", "--to", "mlflow", "--out", "ml-values"]).success();
    let experiment = only(&lab.path("ml-values"));
    let meta = yaml(&experiment.join("meta.yaml"));
    assert_eq!((&meta["name"], &meta["lifecycle_stage"]), (&"toy".into(), &"active".into()));
    assert_eq!(meta["experiment_id"], experiment.file_name().unwrap().to_str().unwrap());
    let run = only(&experiment);
    let meta = yaml(&run.join("meta.yaml"));
    assert_eq!((&meta["run_name"], &meta["status"]), (&"run_1".into(), &3.into()));
    assert_eq!(meta["run_id"], run.file_name().unwrap().to_str().unwrap());
    let params = files(&run.join("params"));
    assert_eq!((params["lora.rank"].as_str(), params["seed"].as_str()), ("8", "1"));
    let metrics = files(&run.join("metrics"));
    for (stage, metric, value) in finals(&shown(lab, "run_1")) {
        let name = format!("{stage}.{metric}");
        let text = metrics.get(&format!("{name}.final")).unwrap_or_else(|| &metrics[&name]);
        let [_, written, "0"] = text.trim_end().split(' ').collect::<Vec<_>>()[..] else {
            panic!("{name}: {text}")
        };
        assert_eq!(written.parse().ok().filter(|value: &f64| !value.is_nan()), value, "{name}");
    }
    let told: Vec<String> =
        steps(lab, "lora.loss").into_iter().map(|(step, value)| format!("{value} {step}")).collect();
    let written: Vec<&str> =
        metrics["lora.loss"].lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(written, told);
    let resolved = yaml(&run.join("artifacts/pipeline.yaml"));
    assert_eq!(resolved["stages"]["lora"]["with"]["rank"], 8);
}

#[test]
fn an_experiment_of_the_same_name_is_taken_and_a_run_that_is_exported_again_replaced() {
    let lab = trained();
    let experiment = lab.path("ml-known/7");
    fs::create_dir_all(&experiment).unwrap();
    fs::write(experiment.join("meta.yaml"), "name: toy\nexperiment_id: '7'\n").unwrap();
    for _ in 0..2 {
        lab.pipe(&["export", "run_1", "--to", "mlflow", "--out", "ml-known"]).success();
    }
    assert_eq!(only(&lab.path("ml-known")), experiment);
    assert_eq!(yaml(&only(&experiment).join("meta.yaml"))["experiment_id"], "7");
}

#[test]
fn metrics_whose_names_differ_in_what_mlflow_does_not_take_stay_apart() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, with: { metrics: m.json,
          command: 'echo \"{\\\"p@5\\\": 3, \\\"p_5\\\": 4, \\\"r@5\\\": 5}\" > {metrics}' } } }",
    );
    lab.run(&[]).success();
    lab.pipe(&["export", "run_1", "--to", "mlflow", "--out", "ml"]).success();
    let metrics = files(&only(&only(&lab.path("ml"))).join("metrics"));
    let values: BTreeMap<&str, &str> =
        metrics.iter().map(|(name, text)| (name.as_str(), text.split(' ').nth(1).unwrap())).collect();
    assert_eq!(values, BTreeMap::from([("a.p_5", "4"), ("a.p_5_28eeb8b4", "3"), ("a.r_5", "5")]));
}
