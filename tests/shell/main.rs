//! Programs of one's own as stages, through the real binary.

#[path = "../lab/mod.rs"]
mod lab;

mod checks;
mod example;
mod folders;
mod inputs;
mod matrix;
mod metrics;
mod processes;
#[cfg(target_os = "linux")]
mod sandbox;
mod seeds;
mod stages;
mod why;
