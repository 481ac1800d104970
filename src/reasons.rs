//! Why a stage runs or need not, in words.

use serde_json::Value;

use super::units::shortened;
use crate::{digest::Digest, record::Reason};

/// Longest parameter value that is written in full, in characters.
const LONGEST: usize = 40;

/// `reason` as part of a line: `with.rank: 8 → 16`.
pub(super) fn words(reason: &Reason) -> String {
    match reason {
        Reason::NeverRun => "no earlier result".into(),
        Reason::Parameter { path, old, new, place } => {
            let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
            format!("with.{path}: {}{place}", change(old.as_ref().map(value), new.as_ref().map(value)))
        }
        Reason::Input { port, from, old, new: None } if old.is_some() => {
            format!("in.{port}: other contents from {from}")
        }
        Reason::Input { port, from, old, new } => {
            let short = |digest: &Digest| digest.short();
            format!("in.{port}: {} ({from})", change(old.as_ref().map(short), new.as_ref().map(short)))
        }
        Reason::Seed { old, new } => {
            format!("seed: {}", change(old.map(|seed| seed.to_string()), new.map(|seed| seed.to_string())))
        }
        Reason::Version { old, new } => format!("kind version: {old} → {new}"),
        Reason::Kind { old, new } => format!("kind: {old} → {new}"),
        Reason::Upstream { stages } => format!(
            "takes from {}, which {} to run",
            list(stages),
            if stages.len() == 1 { "has" } else { "have" }
        ),
        Reason::Forced => "forced".into(),
        Reason::ResultLost { what } => format!("its result was lost: {what}"),
        Reason::Satisfied { since } => format!("has the result of {since}"),
        Reason::Blocked { by } => format!("needs {by}, which failed"),
        Reason::NotStarted { failed } => format!("not started, since {failed} failed"),
    }
}

/// All of them on one line.
pub(super) fn line(reasons: &[Reason]) -> String {
    reasons.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn change(old: Option<String>, new: Option<String>) -> String {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".into());
    format!("{} → {}", or_none(old), or_none(new))
}

fn value(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    shortened(&text.split_whitespace().collect::<Vec<_>>().join(" "), LONGEST)
}

fn list(stages: &[String]) -> String {
    match stages {
        [first, second, _, ..] => format!("{first}, {second} and {} more", stages.len() - 2),
        stages => stages.join(" and "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::{Place, RunId};

    #[test]
    fn every_reason_has_words() {
        let digest = |text: &str| Some(Digest::from(blake3::hash(text.as_bytes())));
        let input =
            |old, new| Reason::Input { port: "reviews".into(), from: "data/x.jsonl".into(), old, new };
        let parameter = |old, new, place| Reason::Parameter { path: "rank".into(), old, new, place };
        let place = Place { source: "a.yaml".into(), line: 12, column: 5 };
        let upstream =
            |stages: &[&str]| Reason::Upstream { stages: stages.iter().map(ToString::to_string).collect() };
        let reasons = [
            Reason::NeverRun,
            parameter(Some(json!(8)), Some(json!(16)), Some(place)),
            parameter(None, Some(json!(["q", "v"])), None),
            parameter(Some(json!("x".repeat(50))), None, None),
            input(digest("a"), digest("b")),
            input(None, digest("b")),
            input(digest("a"), None),
            Reason::Seed { old: Some(1), new: None },
            Reason::Version { old: 1, new: 2 },
            Reason::Kind { old: "lora".into(), new: "fine_tune".into() },
            upstream(&["a"]),
            upstream(&["a", "b"]),
            upstream(&["a", "b", "c", "d"]),
            Reason::Forced,
            Reason::ResultLost { what: "object 12ab… is missing".into() },
            Reason::Satisfied { since: RunId(3) },
            Reason::Blocked { by: "lora".into() },
            Reason::NotStarted { failed: "lora".into() },
        ];
        insta::assert_snapshot!(reasons.iter().map(words).collect::<Vec<_>>().join("\n"), @r#"
        no earlier result
        with.rank: 8 → 16 (a.yaml:12:5)
        with.rank: none → ["q","v"]
        with.rank: xxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxx → none
        in.reviews: 17762fddd969 → 10e5cf3d3c8a (data/x.jsonl)
        in.reviews: none → 10e5cf3d3c8a (data/x.jsonl)
        in.reviews: other contents from data/x.jsonl
        seed: 1 → none
        kind version: 1 → 2
        kind: lora → fine_tune
        takes from a, which has to run
        takes from a and b, which have to run
        takes from a, b and 2 more, which have to run
        forced
        its result was lost: object 12ab… is missing
        has the result of run_3
        needs lora, which failed
        not started, since lora failed
        "#);
    }
}
