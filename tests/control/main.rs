//! Which stages a run is about, how often and how long each may try, and how a run is stopped.

#[path = "../lab/mod.rs"]
mod lab;

mod attempts;
mod failing;
mod logs;
mod matrix;
mod projects;
mod repeats;
mod stopping;
mod targets;
mod watching;
