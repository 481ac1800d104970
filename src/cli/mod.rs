//! The verbs of `pipe`, one a file; the only place that prints.

pub mod compare;
pub mod logs;
mod metrics;
pub mod note;
pub mod runs;
pub mod show;
mod table;
pub mod tag;
mod units;

/// `value` as JSON for people and programs, with its line end.
pub(crate) fn json_text(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain values serialize to JSON");
    text.push('\n');
    text
}
