//! The main job through the real binary: what runs, what does not, what survives.

#[path = "../lab/mod.rs"]
mod lab;

mod demo;
mod failures;
mod gc;
mod kills;
mod reruns;
mod tour;
