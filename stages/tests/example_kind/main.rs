//! The kind that `docs/stage-kinds.md` shows: it compiles, and does what a kind does.

#[path = "../common/mod.rs"]
mod common;
mod short_reviews;

use std::{fs, path::Path};

use common::lab::Lab;
use pipe_stages::{
    contract::StageKind,
    data::{Review, read_reviews, write_reviews},
};
use serde_json::json;
use short_reviews::ShortReviews;

const KIND: StageKind = StageKind::of::<ShortReviews>();

fn review(id: &str, text: &str) -> Review {
    Review { id: id.into(), label: 1, rating: None, text: text.into(), synthetic: true }
}

#[test]
fn reviews_of_at_most_so_many_words_are_kept() {
    let lab = Lab::new();
    let input = lab.path("reviews.jsonl");
    write_reviews(&input, &[review("a", "a fine film"), review("b", "not one of the finest films")]).unwrap();
    let ran = lab.run_kind(&KIND, json!({ "max_words": 3 }), &[("reviews", &input)]).unwrap();
    let kept = read_reviews(ran.output("reviews")).unwrap();
    assert_eq!(kept.iter().map(|review| review.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((ran.metric("kept"), ran.metric("dropped")), (Some(1.0), Some(1.0)));

    let none = lab.run_kind(&KIND, json!({ "max_words": 1 }), &[("reviews", &input)]).unwrap_err();
    assert_eq!(none.to_string(), "none of 2 reviews is that short");
}

#[test]
fn a_count_that_no_review_has_is_refused() {
    let problems = KIND.resolve(json!({ "max_words": 0 })).unwrap_err();
    assert_eq!((problems[0].path.as_str(), problems.len()), ("max_words", 1));
}

#[test]
fn the_guide_shows_this_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(folder.join("../docs/stage-kinds.md")).unwrap();
    let block =
        guide.split("```rust stages/src/kinds/short_reviews.rs\n").nth(1).expect("a block with the file");
    let shown = block.split("```").next().unwrap();
    let file = fs::read_to_string(folder.join("tests/example_kind/short_reviews.rs")).unwrap();
    assert_eq!(shown, file.replace("pipe_stages::", "crate::"));
}
