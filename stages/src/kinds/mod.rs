//! The stage kinds that ship, each one file.

pub mod fetch;
