//! What a stage reports while it runs: one JSON object a line in its event file.

use serde::{Deserialize, Serialize};

/// One line of a stage's event file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A line for the log, said `at` seconds after the start.
    Log {
        /// Seconds since the stage started.
        at: f64,
        /// The line.
        text: String,
    },
    /// A measured value; `None` where it is undefined (0/0) or not finite.
    Metric {
        /// Dotted path after the stage's name.
        name: String,
        /// The step it belongs to; absent for a final value.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
        /// The value.
        value: Option<f64>,
    },
    /// Counts of values between edges: `edges` has one more entry than `counts`.
    Histogram {
        /// Dotted path after the stage's name.
        name: String,
        /// The step it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
        /// Rising limits of the bins.
        edges: Vec<f64>,
        /// Values per bin.
        counts: Vec<u64>,
    },
    /// How far the stage has come.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all, where known.
        total: Option<u64>,
        /// What is counted, such as `reviews` or `bytes`.
        unit: String,
    },
    /// The device that the stage computes on, as a person would name it.
    Device {
        /// Such as `cpu (avx2, 2 threads)`.
        name: String,
    },
    /// The stage failed; the last event of its file.
    Failed {
        /// What happened.
        message: String,
        /// The chain of causes, nearest first.
        causes: Vec<String>,
        /// What to do about it.
        help: Option<String>,
    },
}

/// Reads the whole lines of `text` as events; a line cut short by a kill is left out.
///
/// Returns the events and the number of bytes that whole lines took, so that a reader
/// who follows a growing file knows where to go on.
pub fn read_events(text: &[u8]) -> (Vec<Event>, usize) {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let events = text[..end]
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    (events, end)
}
