//! `pipe compare` through the binary: figures, evidence, and what cannot be compared.

#[path = "../lab/mod.rs"]
mod lab;

mod ablation;
mod differences;
mod directions;
mod evidence;
mod expected;
mod figures;
mod seeds;
mod sweeps;
