//! The stage kinds that ship, each one file.

mod batches;
pub mod classify;
mod device;
pub mod encode;
pub mod evaluate;
pub mod fetch;
pub mod fine_tune;
pub mod gpt2;
mod last_states;
pub mod lora;
mod partial_states;
mod processor;
pub mod reviews;
pub mod sample_reviews;
pub mod shell;
pub mod tokenize;
mod training;
pub mod zero_shot;
