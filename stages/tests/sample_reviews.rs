//! Kind `sample_reviews`: what can and what cannot be learned from made-up reviews.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use common::lab::{Lab, Ran, problems};
use pipe_stages::data::{Review, Tokens, read_reviews};
use serde_json::{Value, json};

fn run(with: Value) -> Ran {
    Lab::new().run("sample_reviews", with, &[]).unwrap()
}

fn reviews(ran: &Ran, port: &str) -> Vec<Review> {
    read_reviews(ran.output(port)).unwrap()
}

fn words(review: &Review) -> impl Iterator<Item = String> {
    review.text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[test]
fn every_review_says_that_it_is_synthetic_and_none_is_in_both_splits() {
    let ran = run(json!({ "train": 301, "test": 200 }));
    let (train, test) = (reviews(&ran, "train"), reviews(&ran, "test"));
    assert!(train.iter().chain(&test).all(|review| review.synthetic && review.id.starts_with("synthetic/")));
    assert_eq!((train.len(), train[0].id.as_str()), (301, "synthetic/train/neg/0"));
    assert_eq!((ran.metric("train.positive"), ran.metric("test.negative")), (Some(151.0), Some(100.0)));
    let ids: BTreeSet<_> = train.iter().chain(&test).map(|review| &review.id).collect();
    let texts: BTreeSet<_> = train.iter().chain(&test).map(|review| &review.text).collect();
    assert_eq!((ids.len(), texts.len()), (501, 501));
}

#[test]
fn a_smaller_count_gives_a_part_and_the_seed_moves_all() {
    let all: BTreeMap<_, _> = reviews(&run(json!({ "train": 40 })), "train")
        .into_iter()
        .map(|review| (review.id, review.text))
        .collect();
    let some = reviews(&run(json!({ "train": 10 })), "train");
    assert!(some.iter().all(|review| all[&review.id] == review.text));
    let other = reviews(&run(json!({ "train": 10, "seed": 2 })), "train");
    assert!(other.iter().all(|review| all[&review.id] != review.text));
}

#[test]
fn no_single_word_decides_the_label() {
    let all = reviews(&run(json!({ "train": 2000 })), "train");
    let mut holds: HashMap<String, [usize; 2]> = HashMap::new();
    for review in &all {
        for word in words(review).collect::<BTreeSet<_>>() {
            holds.entry(word).or_default()[usize::from(review.label)] += 1;
        }
    }
    let accuracy = |[negative, positive]: [usize; 2]| 0.5 + positive.abs_diff(negative) as f64 / 2000.0;
    let (word, best) = holds.iter().max_by(|a, b| accuracy(*a.1).total_cmp(&accuracy(*b.1))).unwrap();
    assert!(accuracy(*best) < 0.7, "{word} tells {}", accuracy(*best));
    let polar = holds.values().filter(|counts| accuracy(**counts) > 0.53).collect::<Vec<_>>();
    assert!(polar.len() >= 30, "{} words lean", polar.len());
    assert!(polar.iter().all(|counts| counts[0] > 20 && counts[1] > 20), "and stand in both labels");
}

#[test]
fn the_label_can_be_learned_from_all_words_together() {
    let ran = run(json!({ "train": 2000, "test": 1000 }));
    let mut weights: HashMap<String, f64> = HashMap::new();
    let score = |weights: &HashMap<String, f64>, review: &Review| -> f64 {
        words(review).map(|word| weights.get(&word).copied().unwrap_or_default()).sum()
    };
    let train = reviews(&ran, "train");
    for _ in 0..10 {
        for place in 0..train.len() {
            let review = &train[place * 1009 % train.len()];
            let wanted = f64::from(review.label);
            let step = 0.02 * (wanted - 1.0 / (1.0 + (-score(&weights, review)).exp()));
            words(review).for_each(|word| *weights.entry(word).or_default() += step);
        }
    }
    let test = reviews(&ran, "test");
    let right = test.iter().filter(|review| (score(&weights, review) > 0.0) == (review.label == 1)).count();
    let accuracy = right as f64 / test.len() as f64;
    eprintln!("all words together: {accuracy}");
    assert!(accuracy > 0.87, "{accuracy}");
}

#[test]
fn lengths_fill_several_bins() {
    let lab = Lab::new();
    let ran = lab.run("sample_reviews", json!({ "train": 1000 }), &[]).unwrap();
    let ran = lab.run("tokenize", json!({}), &[("reviews", ran.output("train"))]).unwrap();
    let lengths = Tokens::read(ran.output("tokens")).unwrap().rows.lengths;
    let within = |from: u32, to: u32| lengths.iter().filter(|length| (from..to).contains(length)).count();
    assert!(within(0, 40) >= 20, "{} short ones", within(0, 40));
    assert!(within(256, 600) >= 100, "{} long ones", within(256, 600));
    assert!(lengths.iter().max() > Some(&400) && lengths.iter().min() >= Some(&10), "{:?}", ran.metrics());
    let ran = lab
        .run("sample_reviews", json!({ "train": 50, "min_sentences": 3, "max_sentences": 3 }), &[])
        .unwrap();
    assert!(reviews(&ran, "train").iter().all(|review| words(review).count() < 60));
}

#[test]
fn golden() {
    let ran = run(json!({ "train": 20, "test": 9 }));
    // Raise `VERSION` of `sample_reviews` when this changes.
    assert_eq!(
        (ran.digest("train").as_str(), ran.digest("test").as_str()),
        (
            "3503ff566cfc0cf83460f3a3dfb5d17f084151933e062e1966f47f5508d35c17",
            "d914543fe8b6aeb559f4d2fdb088d015c37558866687be227cb0042b493b039d"
        )
    );
}

#[test]
fn ranges_are_checked() {
    assert_eq!(
        problems("sample_reviews", json!({ "test": 0, "min_sentences": 5, "max_sentences": 4 })),
        [
            "test: wanted 1 to 1000000 reviews, not 0",
            "max_sentences: 4 is less than `min_sentences`, which is 5"
        ]
    );
}
