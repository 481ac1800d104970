//! Whether results come out again, and whether the cache is whole: `pipe verify`.

#[path = "../lab/mod.rs"]
mod lab;

mod cache;
mod results;
