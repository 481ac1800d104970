//! `pipe compare` through the binary: figures, evidence, and what cannot be compared.

#[path = "../lab/mod.rs"]
mod lab;

mod evidence;
mod figures;
mod seeds;
