//! Which differences are said to be real, and what cannot be compared.

use std::fmt::Write;

use serde_json::Value;

use crate::lab::Lab;

const ONE_METHOD: &str = "
stages:
  eval: { kind: evaluate, in: { m: { file: data/a.csv } } }
";

/// Predictions of positive reviews, right where `right` says so.
fn predictions(right: impl Iterator<Item = bool>) -> String {
    let mut csv = "id,length,label,score,prediction\n".to_owned();
    for (at, right) in right.enumerate() {
        let (score, prediction) = if right { (0.75, 1) } else { (0.25, 0) };
        writeln!(csv, "r{at},{},1,{score},{prediction}", at + 1).unwrap();
    }
    csv
}

/// A project with a run of predictions `a` and one of `b`.
fn two_runs(a: &str, b: &str) -> Lab {
    let lab = Lab::new(ONE_METHOD);
    std::fs::create_dir(lab.path("data")).unwrap();
    for csv in [a, b] {
        lab.write("data/a.csv", csv);
        lab.run(&[]).success();
    }
    lab
}

fn evidence(lab: &Lab, arguments: &[&str]) -> Value {
    let said = lab.pipe(&[&["compare", "1", "2", "--json"], arguments].concat()).success();
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    found["evidence"][0].clone()
}

#[test]
fn a_difference_is_shown_when_chance_gives_it_less_than_once_in_twenty() {
    // Of 20 reviews `b` has 5 or 6 right that `a` has wrong: 2/2^5 = 0.0625, 2/2^6 = 0.03125.
    for (gained, p, better) in [(5u32, 0.0625, Value::Null), (6, 0.031_25, Value::from("b"))] {
        let lab = two_runs(
            &predictions((0..20).map(|at| at < 10)),
            &predictions((0..20).map(|at| at < 10 + gained as usize)),
        );
        let found = evidence(&lab, &[]);
        assert!((found["mcnemar_exact_p"].as_f64().unwrap() - p).abs() < 1e-12, "{found}");
        assert_eq!(found["better"], better);
        assert_eq!(found["difference"], f64::from(gained) / 20.0);
        let counts = ["both_right", "only_a", "only_b", "both_wrong"].map(|name| found[name].as_u64());
        assert_eq!(counts, [Some(10), Some(0), Some(gained.into()), Some(10 - u64::from(gained))]);
        let said = lab.pipe(&["compare", "1", "2"]).success().stdout;
        let sentence = if better.is_null() {
            "eval.m: no difference shown, run_2 less run_1: +25.00 points (95 % "
        } else {
            "eval.m: run_2 is better than run_1: +30.00 points (95 % "
        };
        assert!(said.contains(sentence), "{said}");
        assert!(said.contains("10,000 resamples, seed 1337"), "{said}");
    }
}

#[test]
fn the_interval_is_that_of_the_seed() {
    let lab =
        two_runs(&predictions((0..300).map(|at| at % 3 != 0)), &predictions((0..300).map(|at| at % 4 != 0)));
    let ends = |seed: &str| {
        let found = evidence(&lab, &["--seed", seed]);
        (found["low"].as_f64().unwrap(), found["high"].as_f64().unwrap())
    };
    assert_eq!(ends("1"), ends("1"));
    // 75 gained, 50 lost of 300: 0.0833 ± 1.96 · 0.0370.
    let (low, high) = ends("1");
    assert!((0.005..0.016).contains(&low) && (0.150..0.161).contains(&high), "{low} … {high}");
    assert!((1..9).any(|seed| ends(&seed.to_string()) != ends("1")));
}

#[test]
fn rows_in_another_order_are_the_same_test_set() {
    let right = |at: usize| !at.is_multiple_of(3);
    let a = predictions((0..30).map(right));
    let b = predictions((0..30).map(|at| right(at) || at < 9));
    let mut lines: Vec<&str> = b.lines().collect();
    lines[1..].reverse();
    let found = evidence(&two_runs(&a, &(lines.join("\n") + "\n")), &[]);
    assert_eq!((&found["only_b"], &found["only_a"]), (&3.into(), &0.into()));
}

#[test]
fn other_test_sets_are_refused_with_the_input_that_differs() {
    let lab = two_runs(&predictions((0..20).map(|_| true)), &predictions((0..21).map(|at| at > 4)));
    let said = lab.pipe(&["compare", "1", "2"]).ends_with_code(2);
    insta::assert_snapshot!(said.stderr, @"
    x run_1 and run_2 were tested on different items: run_1 lacks `r20`
    help: the input `eval.m` (`data/a.csv`) has other contents; `--any-test-set` puts their figures
          side by side all the same
    ");
    assert_eq!(said.stdout, "");
    let said = lab.pipe(&["compare", "1", "2", "--any-test-set"]).success();
    assert!(said.stdout.contains("eval.m.accuracy") && !said.stdout.contains("points"), "{}", said.stdout);
}

#[test]
fn more_of_more_reviews_is_called_neither_better_nor_worse() {
    let lab = two_runs(&predictions((0..20).map(|_| true)), &predictions((0..30).map(|at| at > 4)));
    let said = lab.pipe(&["compare", "1", "2", "--any-test-set"]).success().stdout;
    let line = |metric: &str| said.lines().find(|line| line.starts_with(metric)).unwrap();
    assert!(line("eval.m.tp").ends_with("+5"), "{said}");
    assert!(line("eval.m.fn").ends_with("+5"), "{said}");
    assert!(line("eval.m.accuracy ").ends_with("worse"), "{said}");
}

#[test]
fn a_run_that_is_named_twice_is_shown_once_and_with_itself_where_there_is_no_other() {
    let lab = two_runs(&predictions((0..20).map(|_| true)), &predictions((0..20).map(|at| at > 4)));
    let said = lab.pipe(&["compare", "1", "@last~1"]).success();
    assert_eq!(said.stderr, "note: run_1 is named more than once\n");
    assert!(said.stdout.contains("nothing differed"), "{}", said.stdout);
    let said = lab.pipe(&["compare", "1", "2", "run_1", "--csv"]).success();
    assert_eq!(said.stderr, "note: run_1 is named more than once\n");
    assert_eq!(said.stdout, lab.pipe(&["compare", "1", "2", "--csv"]).success().stdout);
}

#[test]
fn the_parameter_that_makes_test_sets_differ_is_named() {
    let lab = Lab::new(crate::lab::EXPERIMENT);
    lab.run(&[]).success();
    lab.run(&["--set", "reviews.test=32", "--set", "lora.rank=2"]).success();
    let said = lab.pipe(&["compare", "1", "2"]).ends_with_code(2);
    assert!(said.stderr.contains("`reviews.test` is 30 in one and 32 in the other"), "{}", said.stderr);
}

#[test]
fn a_run_alone_needs_two_methods() {
    let lab = two_runs(&predictions([true].into_iter()), &predictions([false].into_iter()));
    let said = lab.pipe(&["compare", "1"]).ends_with_code(2);
    assert!(said.stderr.contains("run_1 has no two methods to compare"), "{}", said.stderr);
}

#[test]
fn the_methods_of_a_run_are_compared_pair_by_pair_within_80_columns() {
    let lab = Lab::new(crate::lab::EXPERIMENT);
    lab.run(&[]).success();
    let said = lab.pipe(&["compare", "@last"]).success().stdout;
    for pair in ["fine_tuned  lora", "fine_tuned  zero_shot", "lora        zero_shot"] {
        assert!(said.contains(pair), "no `{pair}` in\n{said}");
    }
    assert!(said.contains("corrected: Holm, for 3 pairs"), "{said}");
    let widest = said.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{widest:?} columns:\n{said}");
}
