//! The stages of `pipe`: what a stage is ([`contract`]), the kinds that ship ([`mod@kinds`]),
//! the files they exchange ([`data`]) and GPT-2 on `dfdx` ([`gpt2`]).
//!
//! Nothing here knows the scheduler. The package `pipe` reads [`kinds()`] and runs
//! [`contract::worker`] in a process of its own.

pub mod acl_imdb;
pub mod checkpoint;
pub mod contract;
pub mod data;
pub mod download;
pub mod draw;
pub mod evaluation;
pub mod gpt2;
pub mod kinds;
mod nearest;
pub mod sample_text;
pub mod tokenizer;

use contract::StageKind;

pub use nearest::nearest;

/// Every kind of stage that a pipeline file can name, in the order of the experiment.
pub fn kinds() -> &'static [StageKind] {
    const KINDS: &[StageKind] = &[
        StageKind::of::<kinds::fetch::Fetch>(),
        StageKind::of::<kinds::reviews::Reviews>(),
        StageKind::of::<kinds::sample_reviews::SampleReviews>(),
        StageKind::of::<kinds::tokenize::Tokenize>(),
        StageKind::of::<kinds::gpt2::Gpt2>(),
        StageKind::of::<kinds::encode::Encode>(),
        StageKind::of::<kinds::zero_shot::ZeroShot>(),
        StageKind::of::<kinds::fine_tune::FineTune>(),
        StageKind::of::<kinds::lora::Lora>(),
        StageKind::of::<kinds::classify::Classify>(),
        StageKind::of::<kinds::evaluate::Evaluate>(),
        StageKind::of::<kinds::shell::Shell>(),
    ];
    KINDS
}
