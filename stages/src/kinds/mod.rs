//! The stage kinds that ship, each one file.

pub mod fetch;
pub mod reviews;
pub mod sample_reviews;
pub mod tokenize;
