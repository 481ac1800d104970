//! Where models compute and who has which GPU, with a worker that makes GPUs up.

#[path = "../lab/mod.rs"]
mod lab;

mod choice;
mod fake;
mod sharing;
