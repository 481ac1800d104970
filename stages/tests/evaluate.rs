//! Kind `evaluate` and its figures against those of other programs.

#![allow(clippy::float_cmp)] // exact values are meant

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{
    lab::{Lab, Ran, kind, problems},
    reference,
};
use pipe_stages::{
    contract::Better,
    data::{Prediction, read_predictions, write_predictions},
    evaluation::{
        BinSummary, Bins, Counts, Paired, area_under_curve, bins_table, bootstrap_interval, mcnemar_exact,
        overall_table, wilson_interval,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The run on the copy beside the tests, whatever reference is asked for.
fn golden_run(with: Value) -> Ran {
    run_on(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/metrics"), with).0
}

fn run_on(folder: &Path, with: Value) -> (Ran, Value) {
    let (a, b) = (folder.join("predictions_a.csv"), folder.join("predictions_b.csv"));
    let ran = Lab::new().run("evaluate", with, &[("a", &a), ("b", &b)]).unwrap();
    (ran, json_file(&folder.join("expected.json")))
}

/// Compares every number of `wanted` with the one at the same place of `found`.
fn assert_close(found: &Value, wanted: &Value, place: &str) {
    match wanted {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            assert_close(&found[key], value, &format!("{place}.{key}"));
        }),
        Value::Array(list) => {
            assert_eq!(found.as_array().map(Vec::len), Some(list.len()), "{place}");
            list.iter()
                .enumerate()
                .for_each(|(i, value)| assert_close(&found[i], value, &format!("{place}[{i}]")));
        }
        Value::Number(number) => {
            let (found, wanted) = (found.as_f64(), number.as_f64().unwrap());
            let is_close =
                found.is_some_and(|found| (found - wanted).abs() <= 1e-9 * wanted.abs().min(1.0) + 1e-15);
            assert!(is_close, "{place}: {found:?}, wanted {wanted}");
        }
        other => assert_eq!(found, other, "{place}"),
    }
}

#[test]
fn gives_every_reference_figure() {
    let Some(folder) = reference("metrics") else { return };
    let bins = json_file(&folder.join("expected.json"))["a"]["bins"].take();
    let bounds = |bin: &Value| -> Vec<u32> {
        let text = bin["bin"].as_str().unwrap().trim_matches(['(', ']']);
        text.split(", ").map(|bound| bound.parse().unwrap()).collect()
    };
    let bins: Vec<_> = bins.as_array().unwrap().iter().map(bounds).collect();
    let edges: Vec<_> = bins.iter().map(|bin| bin[0]).chain(bins.last().map(|bin| bin[1])).collect();
    let (ran, mut wanted) = run_on(&folder, json!({ "edges": edges }));
    // Who decides by score at the threshold of these files comes to the same.
    let by_score = run_on(&folder, json!({ "edges": edges, "threshold": wanted["threshold"] })).0;
    assert_eq!(by_score.metrics(), ran.metrics());
    let found = json_file(ran.output("metrics"));
    let mut checked = 0;
    for name in ["a", "b"] {
        let method = wanted[name].as_object_mut().unwrap();
        let interval = method.remove("accuracy_ci95_wilson").unwrap();
        assert_close(&found["methods"][name]["accuracy_interval"], &interval, name);
        // Those at or below the first edge are in no bin either.
        let rows = read_predictions(&folder.join(format!("predictions_{name}.csv"))).unwrap();
        let below = rows.iter().filter(|row| row.length <= edges[0]).count() as u64;
        let outside = found["methods"][name]["outside_bins"].as_u64().unwrap();
        assert_eq!(json!(outside - below), method.remove("beyond_last_bin").unwrap(), "{name}");
        checked += method.len();
        assert_close(&found["methods"][name], &wanted[name], name);

        let metric = |metric: &str| json!(ran.metric(&format!("{name}.{metric}")));
        for figure in ["accuracy", "precision", "recall", "f1", "auc"] {
            assert_close(&metric(figure), &wanted[name][figure], figure);
        }
        assert_close(&metric("accuracy_low"), &interval[0], "accuracy_low");
        assert_close(&metric("accuracy_high"), &interval[1], "accuracy_high");
        for bin in wanted[name]["bins"].as_array().unwrap() {
            let limits = bin["bin"].as_str().unwrap().trim_matches(['(', ']']).replace(", ", "-");
            for figure in ["tp", "fp", "fn", "tn", "accuracy", "precision", "recall"] {
                assert_close(&metric(&format!("bin.{limits}.{figure}")), &bin[figure], figure);
            }
        }
    }
    assert_eq!(checked, 12, "the reference has figures that are not looked at");
    let paired = &wanted["paired"];
    let pair = &found["pairs"][0];
    assert_close(&pair["accuracy_difference"], &paired["accuracy_difference_b_minus_a"], "difference");
    for figure in ["a_right_b_wrong", "a_wrong_b_right", "mcnemar_exact_p"] {
        assert_close(&pair[figure], &paired[figure], figure);
    }
    assert_close(&found["reviews"], &wanted["n"], "reviews");
}

#[test]
fn a_threshold_decides_by_score() {
    let made = golden_run(json!({}));
    assert_eq!(made.metrics(), golden_run(json!({ "threshold": 0.5 })).metrics(), "the rule of these files");
    let strict = golden_run(json!({ "threshold": 1.0 }));
    assert!(strict.metric("a.recall") < Some(0.05));
    assert_eq!(strict.metric("a.auc"), made.metric("a.auc"));
    assert!(strict.text("tables").contains("positive when its score reaches 1.\n"));
}

#[test]
fn reprints_the_published_tables_from_their_counts() {
    let Some(tables) = reference("paper_tables.json") else { return };
    let published = json_file(&tables);
    let counts = |value: &Value| serde_json::from_value::<Counts>(value.clone()).unwrap();
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    for (name, method) in published["methods"].as_object().unwrap() {
        let overall = counts(&method["overall_counts"]);
        let table = overall_table(&[(name, overall, None)]);
        let row = cells(table.lines().nth(2).unwrap());
        let five = |figure: &str| format!("{:.5}", method[figure].as_f64().unwrap());
        assert_eq!(row[1..5], [name.clone(), five("accuracy"), five("precision"), five("recall")]);

        let bins: Vec<_> = method["bins"].as_array().unwrap().iter().collect();
        let summaries: Vec<_> = bins
            .iter()
            .map(|bin| {
                let edge = |i: usize| bin["bin"][i].as_u64().unwrap() as u32;
                let mut limited = (*bin).clone();
                limited
                    .as_object_mut()
                    .unwrap()
                    .retain(|key, _| ["tp", "fp", "fn", "tn"].contains(&key.as_str()));
                BinSummary { above: edge(0), up_to: edge(1), counts: counts(&limited) }
            })
            .collect();
        for (line, bin) in bins_table(&summaries).lines().skip(2).zip(bins) {
            let wanted = ["tp", "fp", "fn", "tn", "accuracy", "precision", "recall"]
                .map(|figure| bin[figure].to_string());
            assert_eq!(cells(line)[2..9], wanted);
        }
    }
    let overall = Counts { tp: 6434, fp: 1238, fn_: 6066, tn: 11262 };
    insta::assert_snapshot!(overall_table(&[("Zero Shot", overall, Some(0.8)), ("LoRA", Counts::default(), None)]), @"
    | Method    | accuracy | precision |  recall |     F1 |    AUC |     95 % CI |
    |:----------|---------:|----------:|--------:|-------:|-------:|------------:|
    | Zero Shot |  0.70784 |   0.83863 | 0.51472 | 0.6379 | 0.8000 | 0.702–0.713 |
    | LoRA      |        – |         – |       – |      – |      – |           – |
    ");
    let bin =
        BinSummary { above: 256, up_to: 512, counts: Counts { tp: 1360, fp: 301, fn_: 1865, tn: 3164 } };
    insta::assert_snapshot!(bins_table(&[bin, BinSummary { counts: Counts::default(), ..bin }]), @"
    | bin        |   TP |  FP |   FN |   TN | accuracy | precision |   recall |
    |:-----------|-----:|----:|-----:|-----:|---------:|----------:|---------:|
    | (256, 512] | 1360 | 301 | 1865 | 3164 | 0.676233 |  0.818784 | 0.421705 |
    | (256, 512] |    0 |   0 |    0 |    0 |        – |         – |        – |
    ");
}

fn row(id: &str, length: u32, label: u8, prediction: u8) -> Prediction {
    Prediction { id: id.into(), length, label, score: f64::from(prediction), prediction }
}

fn evaluate(with: Value, inputs: &[(&str, &[Prediction])]) -> Result<Ran, String> {
    let lab = Lab::new();
    let paths: Vec<_> = inputs.iter().map(|(name, _)| lab.path(&format!("{name}.csv"))).collect();
    for ((_, rows), path) in inputs.iter().zip(&paths) {
        write_predictions(path, rows).unwrap();
    }
    let named: Vec<_> = inputs.iter().zip(&paths).map(|((name, _), path)| (*name, path.as_path())).collect();
    lab.run("evaluate", with, &named).map_err(|err| err.to_string())
}

#[test]
fn the_document_has_both_published_tables() {
    let zero =
        [row("synthetic/test/pos/0", 0, 1, 1), row("b", 256, 0, 1), row("c", 257, 1, 0), row("d", 600, 1, 1)];
    let tuned =
        [row("d", 600, 1, 1), row("c", 257, 1, 1), row("b", 256, 0, 0), row("synthetic/test/pos/0", 0, 1, 1)];
    let with = json!({
        "edges": [0, 256, 512],
        "titles": { "zero_shot": "Zero Shot" },
        "order": ["zero_shot"],
    });
    let ran = evaluate(with, &[("a_tuned", &tuned), ("zero_shot", &zero)]).unwrap();
    insta::assert_snapshot!(ran.text("tables"), @"
    # Results

    These reviews are synthetic: the figures say nothing of real ones.

    4 reviews; the interval of the accuracy is Wilson's.

    | Method    | accuracy | precision |  recall |     F1 |    AUC |     95 % CI |
    |:----------|---------:|----------:|--------:|-------:|-------:|------------:|
    | Zero Shot |  0.50000 |   0.66667 | 0.66667 | 0.6667 | 0.3333 | 0.150–0.850 |
    | a_tuned   |  1.00000 |   1.00000 | 1.00000 | 1.0000 | 1.0000 | 0.510–1.000 |

    ## By review length

    Bins are tokens of the whole review, before truncation. Reviews of up to 0 or over 512 tokens, 2 here, count in the table above only.

    **Zero Shot**

    | bin        | TP | FP | FN | TN | accuracy | precision | recall |
    |:-----------|---:|---:|---:|---:|---------:|----------:|-------:|
    | (0, 256]   |  0 |  1 |  0 |  0 |        0 |         0 |      – |
    | (256, 512] |  0 |  0 |  1 |  0 |        0 |         – |      0 |

    **a_tuned**

    | bin        | TP | FP | FN | TN | accuracy | precision | recall |
    |:-----------|---:|---:|---:|---:|---------:|----------:|-------:|
    | (0, 256]   |  0 |  0 |  0 |  1 |        1 |         – |      – |
    | (256, 512] |  1 |  0 |  0 |  0 |        1 |         1 |      1 |
    ");
    assert_eq!(ran.metric("a_tuned.bin.0-256.precision"), None, "0/0 is undefined");
    assert_eq!(ran.metric("zero_shot.outside_bins"), Some(2.0));
}

#[test]
fn methods_are_paired_by_id() {
    let a = [row("w", 1, 1, 1), row("x", 1, 0, 1), row("y", 1, 1, 0), row("z", 1, 1, 1)];
    let b = [row("y", 1, 1, 0), row("z", 1, 1, 1), row("w", 1, 1, 1), row("x", 1, 0, 0)];
    let ran = evaluate(json!({}), &[("a", &a), ("b", &b)]).unwrap();
    let pair = &json_file(ran.output("metrics"))["pairs"][0];
    assert_eq!((&pair["a_right_b_wrong"], &pair["a_wrong_b_right"]), (&json!(0), &json!(1)));
}

/// The titles in the order of the tables, of two methods and a sweep of three.
fn titles_of_a_sweep(with: Value) -> Result<Vec<String>, String> {
    let rows = [row("x", 5, 1, 1), row("y", 6, 0, 1)];
    let names = ["a", "lora[rank=16]", "lora[rank=4]", "lora[rank=8]", "zero_shot"];
    let ran = evaluate(with, &names.map(|name| (name, rows.as_slice())))?;
    let tables = ran.text("tables");
    let titles = tables.lines().filter_map(|line| line.strip_prefix("**")?.strip_suffix("**"));
    Ok(titles.map(str::to_owned).collect())
}

#[test]
fn gathered_methods_are_in_the_order_of_their_values() {
    assert_eq!(
        titles_of_a_sweep(json!({})).unwrap(),
        ["a", "lora[rank=4]", "lora[rank=8]", "lora[rank=16]", "zero_shot"]
    );
}

#[test]
fn order_and_titles_name_gathered_methods_together_or_alone() {
    let with = json!({ "order": ["zero_shot", "lora"], "titles": { "lora": "LoRA", "a": "A" } });
    assert_eq!(
        titles_of_a_sweep(with).unwrap(),
        ["zero_shot", "LoRA (rank=4)", "LoRA (rank=8)", "LoRA (rank=16)", "A"]
    );
    let with = json!({
        "order": ["lora[rank=8]", "zero_shot", "lora"],
        "titles": { "lora": "LoRA", "lora[rank=8]": "the best" },
    });
    assert_eq!(
        titles_of_a_sweep(with).unwrap(),
        ["the best", "zero_shot", "LoRA (rank=4)", "LoRA (rank=16)", "a"]
    );
    for with in [json!({ "order": ["lora[rank=2]"] }), json!({ "titles": { "rank=4": "x" } })] {
        assert!(titles_of_a_sweep(with).unwrap_err().ends_with("which is no input"));
    }
}

#[test]
fn metrics_of_gathered_methods_have_a_direction() {
    let rows = [row("x", 5, 1, 1), row("y", 6, 0, 1)];
    let ran = evaluate(json!({}), &[("lora[lr=0.001]", &rows)]).unwrap();
    assert_eq!(ran.metric("lora[lr=0.001].accuracy"), Some(0.5));
    let docs = kind("evaluate").metrics();
    let is_documented = |name: &String| docs.iter().any(|doc| doc.matches(name));
    assert!(ran.metrics().keys().all(is_documented), "{:?}", ran.metrics().keys());
}

#[test]
fn inputs_about_other_reviews_are_refused() {
    let first = [row("x", 5, 1, 1), row("y", 6, 0, 1)];
    let message =
        |second: &[Prediction]| evaluate(json!({}), &[("lora", &first), ("tuned", second)]).err().unwrap();
    let start = "inputs `lora` and `tuned` are not about the same reviews: ";
    assert_eq!(message(&first[..1]), format!("{start}`tuned` lacks `y`"));
    assert_eq!(message(&[row("x", 5, 0, 1), first[1].clone()]), format!("{start}`x` has label 1 and 0"));
    assert_eq!(message(&[row("x", 9, 1, 1), first[1].clone()]), format!("{start}`x` has length 5 and 9"));
    let more = [first.as_slice(), &[row("z", 1, 1, 1)]].concat();
    assert_eq!(message(&more), format!("{start}`lora` lacks `z`"));
    let twice = [first.as_slice(), &first[..1]].concat();
    assert_eq!(message(&twice), "input `tuned` has review `x` twice");
    assert_eq!(message(&[]), "input `tuned` has no predictions");
    let unknown = evaluate(json!({ "titles": { "lara": "LoRA" } }), &[("lora", &first)]).err().unwrap();
    assert_eq!(unknown, "`order` or `titles` names `lara`, which is no input");
}

#[test]
fn golden() {
    let ran = golden_run(json!({}));
    // Raise `VERSION` of `evaluate` when this changes.
    assert_eq!(
        (ran.digest("tables").as_str(), ran.digest("metrics").as_str()),
        (
            "dd1e73cf3f268231cb2c41c930806d91aacaed384f4e852f1192a5a8082ae0ac",
            "5327d5d953fb9b005c17e9b76c2e32c372ad2b38a6757940ba00a441052efa39"
        )
    );
}

#[test]
fn parameters_are_checked() {
    assert_eq!(
        problems("evaluate", json!({ "edges": [0, 256, 256], "threshold": 1.5, "order": ["a", "b", "a"] })),
        [
            "edges: wanted two or more limits that rise",
            "threshold: wanted a score from 0 to 1",
            "order.2: `a` is named twice"
        ]
    );
    assert_eq!(problems("evaluate", json!({ "edges": [3] })).len(), 1);
}

#[test]
fn every_metric_is_documented_with_its_direction() {
    let ran = golden_run(json!({}));
    let docs = kind("evaluate").metrics();
    let better = |name: &str| docs.iter().find(|doc| doc.matches(name)).map(|doc| doc.better);
    assert!(ran.metrics().keys().all(|name| better(name).is_some()), "{:?}", ran.metrics().keys());
    assert_eq!(better("lora.bin.256-512.recall"), Some(Better::Higher));
    assert_eq!(better("lora.fn"), Some(Better::Lower));
    assert_eq!(better("lora.count"), Some(Better::Neither));
}

#[test]
fn bins_hold_their_upper_edge_only() {
    let bins = Bins::new(vec![0, 256, 512]).unwrap();
    let index = |length| bins.index(length);
    assert_eq!([0, 1, 256, 257, 512, 513].map(index), [None, Some(0), Some(0), Some(1), Some(1), None]);
    let raised = Bins::new(vec![10, 20]).unwrap();
    assert_eq!([10, 11, 20, 21].map(|length| raised.index(length)), [None, Some(0), Some(0), None]);
}

#[test]
fn mcnemar_is_the_two_sided_exact_binomial() {
    // Sums of binomial coefficients over powers of two.
    assert_eq!(mcnemar_exact(0, 0), 1.0);
    assert_eq!(mcnemar_exact(3, 3), 1.0);
    let close =
        |found: f64, wanted: f64| assert!((found - wanted).abs() <= 1e-12 * wanted, "{found} {wanted}");
    close(mcnemar_exact(0, 5), 2.0 / 32.0);
    close(mcnemar_exact(7, 1), 2.0 * 9.0 / 256.0);
    close(mcnemar_exact(2, 10), 2.0 * (1.0 + 12.0 + 66.0) / 4096.0);
    assert_eq!(mcnemar_exact(10, 2), mcnemar_exact(2, 10));
    assert!(mcnemar_exact(12_400, 12_600) > 0.2 && mcnemar_exact(12_400, 12_600) < 0.21);
    assert_eq!(mcnemar_exact(0, 25_000), 0.0);
}

#[test]
fn wilson_stays_within_bounds() {
    assert_eq!(wilson_interval(0, 0), None);
    let (low, high) = wilson_interval(0, 10).unwrap();
    assert!(low == 0.0 && (high - 0.277_532_8).abs() < 1e-6, "{low} {high}");
    assert!((wilson_interval(10, 10).unwrap().1 - 1.0).abs() < 1e-12);
}

proptest! {
    #[test]
    fn the_area_is_the_share_of_pairs_in_order(items in proptest::collection::vec((0..6u8, 0..2u8), 0..30)) {
        let items: Vec<_> = items.into_iter().map(|(score, label)| (f64::from(score) / 5.0, label)).collect();
        let side = |wanted: u8| items.iter().filter(move |(_, label)| *label == wanted).map(|(score, _)| *score);
        let pairs: Vec<f64> = side(1)
            .flat_map(|positive| side(0).map(move |negative| (positive, negative)))
            .map(|(positive, negative)| match positive.total_cmp(&negative) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 1.0,
            })
            .collect();
        let wanted = (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64);
        prop_assert_eq!(area_under_curve(items.clone()), wanted);
    }

    #[test]
    fn counts_of_bins_and_outside_are_all(lengths in proptest::collection::vec(0..1500u32, 1..60)) {
        let rows: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(i, length)| row(&i.to_string(), *length, (i % 2) as u8, u8::from(length % 3 == 0)))
            .collect();
        let ran = evaluate(json!({}), &[("m", &rows)]).unwrap();
        let metrics: BTreeMap<_, _> = ran.metrics();
        let sum = |figure: &str| -> f64 {
            let is_bin = |name: &str| name.starts_with("m.bin.") && name.ends_with(figure);
            metrics.iter().filter(|(name, _)| is_bin(name)).filter_map(|(_, value)| *value).sum()
        };
        prop_assert_eq!(sum(".count") + ran.metric("m.outside_bins").unwrap(), lengths.len() as f64);
        prop_assert_eq!(ran.metric("m.count"), Some(lengths.len() as f64));
    }
}

/// The chances of every gain, from `-total` to `total`, of a resample: computed one draw after another.
fn chances_of_gains(paired: &Paired) -> Vec<f64> {
    let total = paired.total() as usize;
    let share = |count: u64| count as f64 / total as f64;
    let (down, up) = (share(paired.a_right_b_wrong), share(paired.a_wrong_b_right));
    let mut chances = vec![0.0; 2 * total + 1];
    chances[total] = 1.0;
    for _ in 0..total {
        let before = chances.clone();
        for (at, chance) in chances.iter_mut().enumerate() {
            let from = |at: Option<usize>| at.and_then(|at| before.get(at)).copied().unwrap_or(0.0);
            *chance =
                before[at] * (1.0 - down - up) + from(at.checked_sub(1)) * up + from(Some(at + 1)) * down;
        }
    }
    chances
}

#[test]
fn the_bootstrap_interval_is_that_of_all_resamples_there_could_be() {
    let of = |both_right, a_right_b_wrong, a_wrong_b_right, both_wrong| Paired {
        both_right,
        a_right_b_wrong,
        a_wrong_b_right,
        both_wrong,
    };
    for paired in [of(3, 1, 4, 2), of(788, 68, 132, 12), of(0, 10, 10, 0), of(300, 0, 9, 91)] {
        let total = paired.total();
        let chances = chances_of_gains(&paired);
        let below = |share: f64| {
            let mut sum = 0.0;
            let at = chances.iter().position(|chance| {
                sum += chance;
                sum >= share
            });
            (at.unwrap() as f64 - total as f64) / total as f64
        };
        let (low, high) = bootstrap_interval(&paired, 100_000, 7).unwrap();
        // Of 100,000 resamples, a share of 2.5 % is met within 0.2 points.
        assert!((below(0.023)..=below(0.027)).contains(&low), "{paired:?}: {low}, wanted {}", below(0.025));
        assert!((below(0.973)..=below(0.977)).contains(&high), "{paired:?}: {high}, wanted {}", below(0.975));
    }
}

#[test]
fn a_bootstrap_depends_on_its_seed_alone_and_has_limits_of_its_own() {
    let paired = Paired { both_right: 500, a_right_b_wrong: 20, a_wrong_b_right: 31, both_wrong: 49 };
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let first = bootstrap_interval(&paired, 1000, 1337);
    assert_eq!(one_thread.install(|| bootstrap_interval(&paired, 1000, 1337)), first);
    assert_ne!(bootstrap_interval(&paired, 1000, 1338), first);
    assert_eq!(bootstrap_interval(&Paired::default(), 1000, 1), None);
    let equal = Paired { both_right: 5, both_wrong: 5, ..Paired::default() };
    assert_eq!(bootstrap_interval(&equal, 1000, 1), Some((0.0, 0.0)));
    let always = Paired { a_wrong_b_right: 5, ..Paired::default() };
    assert_eq!(bootstrap_interval(&always, 1000, 1), Some((1.0, 1.0)));
}
