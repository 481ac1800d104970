//! Programs of one's own as stages, through the real binary.

#[path = "../lab/mod.rs"]
mod lab;

mod checks;
mod example;
mod stages;
mod why;
