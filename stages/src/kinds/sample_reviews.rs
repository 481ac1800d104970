//! Kind `sample_reviews`: made-up reviews, for trying a pipeline without the real ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    contract::{MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    data::{Review, write_reviews},
    draw::Draw,
    sample_text,
};

/// Most reviews of a split.
const MOST_REVIEWS: usize = 1_000_000;

/// Most sentences of a review.
const MOST_SENTENCES: usize = 10_000;

/// Makes up reviews from a seeded grammar.
pub struct SampleReviews;

/// Parameters of `sample_reviews`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Synthetic reviews for training, 1 to 1,000,000: half positive, half negative, the odd one positive.
    pub train: usize,
    /// Synthetic held-out reviews, 1 to 1,000,000, balanced as in `train`.
    pub test: usize,
    /// Seed of the grammar. A smaller count gives a part of the reviews of a larger one.
    pub seed: u64,
    /// Fewest sentences of a review, at least 1. Short reviews are more frequent than long ones.
    pub min_sentences: usize,
    /// Most sentences of a review, up to 10,000; a sentence has 10 tokens or so.
    pub max_sentences: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { train: 1000, test: 500, seed: 1337, min_sentences: 2, max_sentences: 40 }
    }
}

impl Stage for SampleReviews {
    type Params = Params;
    const KIND: &'static str = "sample_reviews";
    const SUMMARY: &'static str = "Makes up synthetic reviews in which no single word decides the label";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            .output("train", PortType::Reviews, "synthetic reviews for training, sorted by id")
            .output("test", PortType::Reviews, "synthetic held-out reviews, sorted by id")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        for (name, count) in [("train", params.train), ("test", params.test)] {
            if !(1..=MOST_REVIEWS).contains(&count) {
                let message = format!("wanted 1 to {MOST_REVIEWS} reviews, not {count}");
                problems.push(ParamProblem::new(name, message));
            }
        }
        if params.max_sentences > MOST_SENTENCES {
            let message = format!("a review has at most {MOST_SENTENCES} sentences");
            problems.push(ParamProblem::new("max_sentences", message));
        }
        if params.min_sentences == 0 {
            problems.push(ParamProblem::new("min_sentences", "a review has at least 1 sentence"));
        }
        if params.max_sentences < params.min_sentences {
            let (most, fewest) = (params.max_sentences, params.min_sentences);
            let message = format!("{most} is less than `min_sentences`, which is {fewest}");
            problems.push(ParamProblem::new("max_sentences", message));
        }
        problems
    }

    fn metrics() -> &'static [MetricDoc] {
        const {
            &[
                MetricDoc::neutral("*.positive", "positive synthetic reviews in `train` or `test`"),
                MetricDoc::neutral("*.negative", "negative synthetic reviews in `train` or `test`"),
            ]
        }
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        cx.log("these reviews are synthetic: what a model learns from them says nothing of real reviews");
        for (split, count) in [("train", params.train), ("test", params.test)] {
            let mut reviews = Vec::with_capacity(count);
            for (label, count) in [(0, count / 2), (1, count.div_ceil(2))] {
                reviews.extend((0..count).map(|number| make(split, label, number, &params)));
                let name = if label == 1 { "positive" } else { "negative" };
                cx.metric(&format!("{split}.{name}"), count as f64);
            }
            write_reviews(cx.output(split), &reviews)?;
        }
        Ok(())
    }
}

/// The review `number` of its split and label, whatever else is made.
fn make(split: &str, label: u8, number: usize, params: &Params) -> Review {
    let half = u64::from(split == "test") * 2 + u64::from(label);
    let mut draw = Draw::new(params.seed, number as u64 * 4 + half);
    let spread = params.max_sentences - params.min_sentences + 1;
    let sentences = params.min_sentences + draw.below(spread).min(draw.below(spread));
    Review {
        id: format!("synthetic/{split}/{}/{number}", if label == 1 { "pos" } else { "neg" }),
        label,
        rating: None,
        text: sample_text::review(label, sentences, &mut draw),
        synthetic: true,
    }
}
