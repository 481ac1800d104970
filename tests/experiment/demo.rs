//! The profile `demo` of the published experiment: offline, and it learns.

use std::{fs, path::Path};

use crate::lab::{Lab, archive};

/// A project with the pipelines that ship.
pub fn shipped() -> Lab {
    let lab = Lab::new("");
    fs::remove_file(lab.path("pipelines/p.yaml")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for entry in walkdir::WalkDir::new(&folder).into_iter().map(Result::unwrap) {
        let target = lab.path("pipelines").join(entry.path().strip_prefix(&folder).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
    lab
}

#[test]
fn fine_tuning_learns_on_every_one_of_five_seeds() {
    let lab = shipped();
    for seed in 1..=5 {
        let sets = ["seed", "reviews.seed", "gpt2.seed"].map(|name| format!("--set={name}={seed}"));
        let arguments = ["run", "pipelines/all_three.yaml", "--profile", "demo"];
        lab.pipe(&[&arguments[..], &sets.each_ref().map(String::as_str)].concat()).success();
        let low: f64 = lab.ask(&format!(
            "SELECT value FROM final_metrics WHERE run = {seed} AND metric = 'eval.fine_tuned.accuracy_low'"
        ));
        eprintln!("seed {seed}: the Wilson lower bound of the held-out accuracy is {low:.3}");
        assert!(low > 0.65, "seed {seed}: {low}");
    }
}

#[test]
fn every_shipped_pipeline_passes_its_check_and_runs_its_demo() {
    let lab = shipped();
    for file in ["pipelines/all_three.yaml", "pipelines/prompts.yaml"] {
        lab.pipe(&["check", file]).success();
    }
    lab.pipe(&["run", "pipelines/prompts.yaml", "--profile", "demo"]).success();
}

#[test]
fn real_reviews_from_a_local_archive_go_all_the_way() {
    let Some(archive) = archive() else { return };
    let lab = shipped();
    let archive = format!("vars.archive={}", archive.display());
    let sets = [
        &archive,
        "vars.train=20",
        "vars.test=20",
        "gpt2.n_layer=4",
        "gpt2.n_head=2",
        "gpt2.n_embd=16",
        "trunk_train.blocks=2",
        "trunk_test.blocks=2",
    ];
    let mut arguments = vec!["run", "pipelines/all_three.yaml"];
    ["random_weights", "quick", "local"].iter().for_each(|profile| arguments.extend(["--profile", profile]));
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let said = lab.pipe(&arguments).success();
    assert!(said.stdout.contains("20 reviews") && !said.stdout.contains("synthetic"), "{}", said.stdout);
    let labels = "SELECT CAST(value AS INTEGER) FROM final_metrics WHERE metric = 'reviews.test.positive'";
    assert_eq!(lab.ask::<i64>(labels), 10, "balanced");
}
