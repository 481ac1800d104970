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
        Reason::Upstream { stages } => format!("takes from {}, which runs before", list(stages)),
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

/// Seconds as `0.42 s`, `12.3 s`, `3 min 20 s` or `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 9.995 => format!("{s:.2} s"),
        s if s < 99.95 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as `512 B`, `1.4 MiB`, `15.9 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut amount = bytes as f64 / 1024.0;
    if amount < 1.0 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_change_their_unit_where_the_next_one_reads_better() {
        assert_eq!([0.004, 9.99, 10.0, 99.96, 3599.6].map(duration), ["0.00 s", "9.99 s", "10.0 s", "1 min 40 s", "60 min 00 s"]);
        assert_eq!(duration(7500.0), "2 h 05 min");
        assert_eq!([0, 1023, 1024, 1_048_524, 1 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 GiB"]);
    }

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
