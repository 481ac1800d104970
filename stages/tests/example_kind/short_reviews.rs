//! Kind `short_reviews`: the reviews of at most so many words.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use pipe_stages::{
    contract::{MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    data::{Review, read_reviews, write_reviews},
};

/// Keeps the reviews of at most so many words.
pub struct ShortReviews;

/// Parameters of `short_reviews`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Most words of a review that is kept, at least 1.
    pub max_words: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self { max_words: 50 }
    }
}

impl Stage for ShortReviews {
    type Params = Params;
    const KIND: &'static str = "short_reviews";
    const SUMMARY: &'static str = "Keeps the reviews of at most so many words";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            // Name, what the bytes are, one line on what it holds.
            .input("reviews", PortType::Reviews, "reviews of any length")
            .output("reviews", PortType::Reviews, "the short ones, in the same order")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        if params.max_words > 0 {
            return Vec::new();
        }
        vec![ParamProblem::new("max_words", "no review has 0 words").help("write 1 or more")]
    }

    fn metrics() -> &'static [MetricDoc] {
        const {
            &[
                MetricDoc::neutral("kept", "reviews that are kept"),
                MetricDoc::neutral("dropped", "reviews that are too long"),
            ]
        }
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let reviews = read_reviews(cx.input("reviews"))?;
        let is_short = |review: &&Review| review.text.split_whitespace().count() <= params.max_words;
        let short: Vec<Review> = reviews.iter().filter(is_short).cloned().collect();
        if short.is_empty() {
            let message = format!("none of {} reviews is that short", reviews.len());
            return Err(StageError::new(message).help("raise `max_words`"));
        }
        cx.metric("kept", short.len() as f64);
        cx.metric("dropped", (reviews.len() - short.len()) as f64);
        write_reviews(cx.output("reviews"), &short)
    }
}
