//! Why a stage runs or need not, in words.

use serde_json::Value;

use super::{
    contrast,
    units::{self, shortened},
};
use crate::{
    names::{Place, RunId},
    record::{FileChanges, Reason},
};

/// Longest parameter value that is written in full, in characters.
const LONGEST: usize = 40;
/// How many files that changed in the same way are named.
const NAMED: usize = 3;

/// `reason` as part of a line: `with.rank: 8 → 16`.
pub(super) fn words(reason: &Reason) -> String {
    match reason {
        Reason::NeverRun => "no earlier result".into(),
        Reason::Parameter { path, old, new, place, .. } => {
            let place = written_at(place.as_ref());
            format!("with.{path}: {}{place}", change(old.as_ref(), new.as_ref(), "none"))
        }
        Reason::Environment { variable, old, new, declared, place, .. } => {
            let place = written_at(place.as_ref());
            let value = |text: &Option<String>| text.as_deref().map(Value::from);
            let (old, new) = (value(old), value(new));
            let change = match declared {
                None => change(old.as_ref(), new.as_ref(), "unset"),
                Some(true) => format!("not declared → {}", alone(new.as_ref(), "unset")),
                Some(false) => format!("{} → not declared", alone(old.as_ref(), "unset")),
            };
            format!("environment {variable}: {change}{place}")
        }
        Reason::Input { port, from, files: Some(files), .. } if *files != FileChanges::default() => {
            format!("in.{port}: {} in {from}", file_changes(files))
        }
        Reason::Input { port, new: None, .. } => format!("input `{port}` was removed"),
        Reason::Input { port, from, old: None, .. } => format!("input `{port}` was added ({from})"),
        Reason::Input { port, from, old: Some(old), new: Some(new), .. } => {
            format!("in.{port}: {} → {} ({from})", old.short(), new.short())
        }
        Reason::Seed { old, new, place, .. } => {
            let seed = |seed: &Option<u64>| seed.map(Value::from);
            let change = change(seed(old).as_ref(), seed(new).as_ref(), "none");
            format!("seed: {change}{}", written_at(place.as_ref()))
        }
        Reason::Version { old, new, .. } => format!("kind version: {old} → {new}"),
        Reason::Kind { old, new, .. } => format!("kind: {old} → {new}"),
        Reason::Upstream { stages } => format!(
            "takes from {}, which {} to run",
            list(stages),
            if stages.len() == 1 { "has" } else { "have" }
        ),
        Reason::Retried { attempts } => format!("took {attempts} attempts"),
        Reason::Forced => "forced".into(),
        Reason::ResultLost { what } => format!("its result was lost: {what}"),
        Reason::Satisfied { since, device } => {
            let device = device.as_deref().map(|device| format!(", on {}", short_device(device)));
            let result = since.map_or_else(
                || "has a result from elsewhere".to_owned(),
                |since| format!("has the result of {since}"),
            );
            format!("{result}{}", device.unwrap_or_default())
        }
        Reason::SameBytes { stages } => format!("{} ran but wrote the same bytes", list(stages)),
        Reason::Blocked { by } => format!("needs {by}, which failed"),
        Reason::NotSelected { stage } => format!("needs {stage}, which has no result and is not selected"),
        Reason::NotStarted { failed } => format!("not started, since {failed} failed"),
    }
}

/// All of them on one line, with the run that they compare with.
pub(super) fn line(reasons: &[Reason]) -> String {
    let line = reasons.iter().map(words).collect::<Vec<_>>().join("; ");
    match since(reasons) {
        Some(run) => format!("{line}, since {run}"),
        None => line,
    }
}

/// The run that they compare with.
pub(super) fn since(reasons: &[Reason]) -> Option<RunId> {
    reasons.iter().find_map(Reason::since)
}

/// A processor by its first word, since where a GPU has not computed it is nothing special; a GPU in full.
fn short_device(device: &str) -> &str {
    if device.starts_with("cpu") { "cpu" } else { device }
}

fn written_at(place: Option<&Place>) -> String {
    place.map(|place| format!(" ({place})")).unwrap_or_default()
}

/// `changed a.txt and b.txt, added c.txt, removed d.txt, e.txt and 7 more`.
fn file_changes(files: &FileChanges) -> String {
    let kinds = [("changed", &files.changed), ("added", &files.added), ("removed", &files.removed)];
    let told = kinds.into_iter().filter(|(_, files)| files.count > 0).map(|(what, files)| {
        let mut shown: Vec<String> = files.first.iter().map(|name| shortened(name, LONGEST)).collect();
        shown.truncate(if files.count <= NAMED { NAMED } else { NAMED - 1 });
        match files.count - shown.len() {
            0 => format!("{what} {}", units::list(&shown)),
            more => format!("{what} {} and {more} more", shown.join(", ")),
        }
    });
    told.collect::<Vec<_>>().join("; ")
}

/// `8 → 16`; what is not there is `missing`.
fn change(old: Option<&Value>, new: Option<&Value>, missing: &str) -> String {
    contrast::shortened(&contrast::texts(&[old, new], missing), LONGEST).join(" → ")
}

fn alone(value: Option<&Value>, missing: &str) -> String {
    contrast::shortened(&contrast::texts(&[value], missing), LONGEST).concat()
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
    use crate::{digest::Digest, record::FileNames};

    #[test]
    fn every_reason_has_words() {
        let digest = |text: &str| Some(Digest::from(blake3::hash(text.as_bytes())));
        let input = |old, new| Reason::Input {
            port: "reviews".into(),
            from: "data/x.jsonl".into(),
            old,
            new,
            files: None,
            since: None,
        };
        let parameter =
            |old, new, place| Reason::Parameter { path: "rank".into(), old, new, place, since: None };
        let place = Place { source: "a.yaml".into(), line: 12, column: 5, variables: Vec::new() };
        let files = |count: usize| FileNames {
            count,
            first: (0..count.min(10)).map(|number| format!("{number}.txt")).collect(),
        };
        let environment = |old: Option<&str>, new: Option<&str>| Reason::Environment {
            variable: "GPUS".into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
            declared: None,
            place: None,
            since: None,
        };
        let declared = |is_declared: bool| Reason::Environment {
            variable: "GPUS".into(),
            old: None,
            new: None,
            declared: Some(is_declared),
            place: None,
            since: None,
        };
        let upstream =
            |stages: &[&str]| Reason::Upstream { stages: stages.iter().map(ToString::to_string).collect() };
        let reasons = [
            Reason::NeverRun,
            parameter(Some(json!(8)), Some(json!(16)), Some(place)),
            parameter(None, Some(json!(["q", "v"])), None),
            parameter(Some(json!("x".repeat(50))), None, None),
            parameter(Some(json!(1)), Some(json!("1")), None),
            input(digest("a"), digest("b")),
            input(None, digest("b")),
            input(digest("a"), None),
            Reason::Input {
                port: "data".into(),
                from: "data".into(),
                old: digest("a"),
                new: digest("b"),
                files: Some(FileChanges { added: files(1), removed: files(3), changed: files(12) }),
                since: Some(RunId(2)),
            },
            environment(Some("0"), None),
            environment(None, Some("0,1")),
            declared(true),
            declared(false),
            Reason::Seed { old: Some(1), new: None, place: None, since: None },
            Reason::Version { old: 1, new: 2, since: None },
            Reason::Kind { old: "lora".into(), new: "fine_tune".into(), since: None },
            upstream(&["a"]),
            upstream(&["a", "b"]),
            upstream(&["a", "b", "c", "d"]),
            Reason::Retried { attempts: 3 },
            Reason::Forced,
            Reason::ResultLost { what: "object 12ab… is missing".into() },
            Reason::Satisfied { since: Some(RunId(3)), device: None },
            Reason::Satisfied { since: None, device: None },
            Reason::Satisfied { since: Some(RunId(3)), device: Some("cpu (AVX2, 2 threads)".into()) },
            Reason::Satisfied { since: Some(RunId(3)), device: Some("cuda (NVIDIA H100 80GB HBM3)".into()) },
            Reason::SameBytes { stages: vec!["a".into(), "b".into()] },
            Reason::Blocked { by: "lora".into() },
            Reason::NotSelected { stage: "lora".into() },
            Reason::NotStarted { failed: "lora".into() },
        ];
        insta::assert_snapshot!(reasons.iter().map(words).collect::<Vec<_>>().join("\n"), @r#"
        no earlier result
        with.rank: 8 → 16 (a.yaml:12:5)
        with.rank: none → ["q","v"]
        with.rank: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… → none
        with.rank: 1 → "1"
        in.reviews: 17762fddd969 → 10e5cf3d3c8a (data/x.jsonl)
        input `reviews` was added (data/x.jsonl)
        input `reviews` was removed
        in.data: changed 0.txt, 1.txt and 10 more; added 0.txt; removed 0.txt, 1.txt and 2.txt in data
        environment GPUS: 0 → unset
        environment GPUS: unset → 0,1
        environment GPUS: not declared → unset
        environment GPUS: unset → not declared
        seed: 1 → none
        kind version: 1 → 2
        kind: lora → fine_tune
        takes from a, which has to run
        takes from a and b, which have to run
        takes from a, b and 2 more, which have to run
        took 3 attempts
        forced
        its result was lost: object 12ab… is missing
        has the result of run_3
        has a result from elsewhere
        has the result of run_3, on cpu
        has the result of run_3, on cuda (NVIDIA H100 80GB HBM3)
        a and b ran but wrote the same bytes
        needs lora, which failed
        needs lora, which has no result and is not selected
        not started, since lora failed
        "#);
    }
}
