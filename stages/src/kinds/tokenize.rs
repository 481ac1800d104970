//! Kind `tokenize`: reviews to prompts of token ids.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    contract::{MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    data::{Review, Rows, Tokens, read_reviews},
    tokenizer::{Encoder, without_markup},
};

/// Reviews that a thread takes at once.
const CHUNK: usize = 64;

/// Encodes reviews as prompts for GPT-2.
pub struct Tokenize;

/// Parameters of `tokenize`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Text before the review. Its tokens, the review's and the suffix's are made apart and joined.
    pub prefix: String,
    /// Text after the review; the model's answer is what follows its last token.
    pub suffix: String,
    /// Most tokens of a prompt, prefix and suffix included. What a review has beyond is cut off.
    pub max_tokens: usize,
    /// Which tokens of a longer review to keep.
    pub keep: Keep,
    /// What to take out of a review first.
    pub clean: Clean,
}

/// The end of a long review that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Its last tokens, where reviewers come to their verdict.
    Last,
    /// Its first tokens.
    First,
}

/// What is taken out of a review before it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clean {
    /// Markup: all that matches `<.*?>`; nothing is put in its place.
    Html,
    /// Nothing.
    None,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            prefix: "Review: ".into(),
            suffix: "Sentiment:".into(),
            max_tokens: 256,
            keep: Keep::Last,
            clean: Clean::Html,
        }
    }
}

/// The tokens around every review, and how many fit between them.
struct Frame {
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    room: usize,
}

impl Frame {
    /// The frame, or the number of tokens that prefix and suffix have if no review fits in.
    fn new(params: &Params) -> Result<Self, usize> {
        let mut encoder = Encoder::default();
        let (prefix, suffix) = (encoder.encode(&params.prefix), encoder.encode(&params.suffix));
        let taken = prefix.len() + suffix.len();
        match params.max_tokens.checked_sub(taken) {
            Some(room @ 1..) => Ok(Self { prefix, suffix, room }),
            _ => Err(taken),
        }
    }
}

impl Stage for Tokenize {
    type Params = Params;
    const KIND: &'static str = "tokenize";
    const SUMMARY: &'static str = "Encodes reviews as prompts of GPT-2 tokens";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        Ports::new().input("reviews", PortType::Reviews, "labelled reviews, one JSON object a line").output(
            "tokens",
            PortType::Tokens,
            "one prompt a review, in the order of the reviews",
        )
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        // A token has a byte or more, so most frames fit without a look at the vocabulary.
        if params.prefix.len() + params.suffix.len() < params.max_tokens {
            return Vec::new();
        }
        match Frame::new(params) {
            Ok(_) => Vec::new(),
            Err(taken) => {
                let message = format!(
                    "{} tokens leave no room for a review: prefix and suffix take {taken}",
                    params.max_tokens
                );
                vec![ParamProblem::new("max_tokens", message)]
            }
        }
    }

    fn metrics() -> &'static [MetricDoc] {
        const {
            &[
                MetricDoc::neutral("count", "reviews"),
                MetricDoc::neutral("truncated", "reviews that did not fit whole"),
                MetricDoc::neutral("review_tokens.*", "tokens of a whole review: min, median, mean, max"),
                MetricDoc::neutral(
                    "prompt_tokens.*",
                    "tokens of a prompt: min, median, mean, max, and in total",
                ),
            ]
        }
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let frame = Frame::new(&params).map_err(|taken| {
            StageError::new(format!("prefix and suffix take {taken} of {} tokens", params.max_tokens))
        })?;
        let reviews = read_reviews(cx.input("reviews"))?;
        if reviews.is_empty() {
            let message = format!("`{}` has no reviews", cx.input("reviews").display());
            return Err(StageError::new(message));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(cx.threads())
            .build()
            .map_err(|err| StageError::new("cannot start threads").because(err))?;
        let (total, done) = (reviews.len() as u64, AtomicU64::new(0));
        let chunks: Vec<Chunk> = pool.install(|| {
            let encode = |encoder: &mut Encoder, reviews: &[Review]| {
                let chunk = Chunk::encode(&params, &frame, encoder, reviews);
                let done = done.fetch_add(reviews.len() as u64, Ordering::Relaxed) + reviews.len() as u64;
                cx.progress(done, Some(total), "reviews");
                chunk
            };
            reviews.par_chunks(CHUNK).map_init(Encoder::default, encode).collect()
        });

        let mut tokens = Tokens { rows: Rows { offsets: vec![0], ..Rows::default() }, tokens: Vec::new() };
        tokens.tokens.reserve_exact(chunks.iter().map(|chunk| chunk.tokens.len()).sum());
        let mut prompt_lengths = Vec::with_capacity(reviews.len());
        for chunk in chunks {
            tokens.rows.lengths.extend(chunk.lengths);
            tokens.tokens.extend(chunk.tokens);
            prompt_lengths.extend(chunk.prompt_lengths);
        }
        for length in &prompt_lengths {
            tokens.rows.offsets.push(tokens.rows.positions() + *length as usize);
        }
        for review in reviews {
            tokens.rows.ids.push(review.id);
            tokens.rows.labels.push(review.label);
        }
        cx.metric("count", tokens.rows.len() as f64);
        let is_cut = |length: &&u32| **length as usize > frame.room;
        cx.metric("truncated", tokens.rows.lengths.iter().filter(is_cut).count() as f64);
        describe(cx, "review_tokens", tokens.rows.lengths.clone());
        describe(cx, "prompt_tokens", prompt_lengths);
        cx.metric("prompt_tokens.total", tokens.tokens.len() as f64);
        tokens.write(cx.output("tokens"))
    }
}

/// The prompts of a few reviews, one after the other.
#[derive(Default)]
struct Chunk {
    tokens: Vec<u32>,
    lengths: Vec<u32>,
    prompt_lengths: Vec<u32>,
}

impl Chunk {
    fn encode(params: &Params, frame: &Frame, encoder: &mut Encoder, reviews: &[Review]) -> Self {
        let (mut chunk, mut ids) = (Self::default(), Vec::new());
        for review in reviews {
            ids.clear();
            match params.clean {
                Clean::Html => encoder.encode_into(&without_markup(&review.text), &mut ids),
                Clean::None => encoder.encode_into(&review.text, &mut ids),
            }
            let kept = match params.keep {
                Keep::Last => &ids[ids.len().saturating_sub(frame.room)..],
                Keep::First => &ids[..ids.len().min(frame.room)],
            };
            chunk.lengths.push(ids.len() as u32);
            chunk.prompt_lengths.push((frame.prefix.len() + kept.len() + frame.suffix.len()) as u32);
            chunk.tokens.extend([&frame.prefix, kept, &frame.suffix].into_iter().flatten());
        }
        chunk
    }
}

/// Reports min, median, mean and max of `lengths`, which are not none.
fn describe(cx: &StageCx<'_>, name: &str, mut lengths: Vec<u32>) {
    lengths.sort_unstable();
    let (count, at) = (lengths.len(), |place: usize| f64::from(lengths[place]));
    let total: u64 = lengths.iter().copied().map(u64::from).sum();
    cx.metric(&format!("{name}.min"), at(0));
    cx.metric(&format!("{name}.median"), f64::midpoint(at((count - 1) / 2), at(count / 2)));
    cx.metric(&format!("{name}.mean"), total as f64 / count as f64);
    cx.metric(&format!("{name}.max"), at(count - 1));
}
