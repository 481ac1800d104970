//! Reasons, amounts and times in the words that people read.

use std::fmt::Write;

use serde_json::Value;

use crate::record::Reason;

/// One line a reason, without the stage.
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::NeverRun => "no earlier result".into(),
        Reason::Parameter { path, old, new, place } => {
            let mut text = format!("{path}: {} → {}", value(old.as_ref()), value(new.as_ref()));
            if let Some(place) = place {
                let _ = write!(text, " ({place})");
            }
            text
        }
        Reason::Input { port, from, old, new } => match (old, new) {
            (None, _) => format!("input {port} is new ({from})"),
            (_, None) => format!("input {port} is gone"),
            (Some(_), Some(_)) => format!("input {port} has other bytes ({from})"),
        },
        Reason::Seed { old, new } => {
            let text = |seed: &Option<u64>| seed.map_or("none".to_owned(), |seed| seed.to_string());
            format!("seed: {} → {}", text(old), text(new))
        }
        Reason::Version { old, new } => format!("the kind's version: {old} → {new}"),
        Reason::Kind { old, new } => format!("kind: {old} → {new}"),
        Reason::Upstream { stages } => {
            format!("takes from {}, which run{} first", list(stages), if stages.len() == 1 { "s" } else { "" })
        }
        Reason::Forced => "forced".into(),
        Reason::ResultLost { what } => what.clone(),
        Reason::Satisfied { since } => format!("since {since}"),
        Reason::Blocked { by } => format!("{by} failed"),
    }
}

/// All reasons on one line.
pub fn reasons(reasons: &[Reason]) -> String {
    reasons.iter().map(reason).collect::<Vec<_>>().join("; ")
}

/// `a`, `a and b`, `a, b and c`.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 stage`, `2 stages`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn value(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::String(text)) => format!("{text:?}"),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_parameter_is_told_with_both_values() {
        let told = reason(&Reason::Parameter {
            path: "rank".into(),
            old: Some(8.into()),
            new: Some(16.into()),
            place: None,
        });
        assert_eq!(told, "rank: 8 → 16");
    }
}
