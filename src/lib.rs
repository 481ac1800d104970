//! The orchestrator: decides what has to run, runs it, and remembers what it gave.
//!
//! Floors, from the top; a file imports only from floors below (`tests/floors.rs`):
//!
//! ```text
//! 4  cli                              one verb a file; the only place that prints
//! 3  engine | report | export         decides what happens next; draws or hands out what has happened
//! 2  pipeline | cache | runs | exec | git   each knows one medium
//! 1  digest, fingerprint, names, …    nouns, mostly pure
//! 0  pipe-stages                      the contract of a stage, and the kinds
//! ```

pub mod attempts;
pub mod cache;
pub mod cli;
mod contrast;
pub mod digest;
pub mod engine;
pub mod exec;
pub mod export;
pub mod fingerprint;
pub mod git;
pub mod halt;
mod meant;
mod metrics;
pub mod names;
pub mod pattern;
pub mod pipeline;
mod process;
mod quoted;
mod reasons;
pub mod record;
pub mod report;
pub mod resources;
pub mod root;
pub mod runs;
mod units;
