//! Metrics that a program wrote to a file of its own: JSON or CSV.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
};

use serde_json::Value;

use super::{Metrics, once, table};
use crate::contract::{Event, StageError};

/// Reads the metrics in all of `files`. A metric of steps alone has the value of the last one as its final value.
pub(super) fn read(files: &[Metrics]) -> Result<Vec<Event>, StageError> {
    let mut all = Vec::new();
    for Metrics { name, path } in files {
        let found = read_one(name, path)?;
        let known: HashSet<Found> = all.iter().filter_map(Found::of).collect();
        if let Some(twice) = found.iter().filter_map(Found::of).find(|found| known.contains(found)) {
            let message = format!("the metrics in `{name}` give `{}` a second time", twice.name);
            return Err(StageError::new(message).help("give each metric in one file"));
        }
        all.extend(found);
    }
    all.extend(last_values(&all));
    Ok(all)
}

/// Reads the metrics in `path`, which the pipeline file calls `file`.
///
/// JSON: numbers by their dotted path, `null` or what Python writes for NaN and infinity for an undefined
/// value, a list of numbers as the values of steps from 1. Texts are left out. CSV: see [`table::read`].
fn read_one(file: &str, path: &Path) -> Result<Vec<Event>, StageError> {
    let text = contents(file, path)?;
    let text = text.trim_start_matches('\u{feff}');
    let (found, is_empty) = if text.trim_start().starts_with(['{', '[']) {
        let value = once::from_str(&with_nulls(text)).map_err(|err| {
            if err.is_data() {
                // The JSON is well-formed, but a name stands twice.
                let twice = StageError::new(format!("the metrics in `{file}` {err}"));
                return twice.help("write each metric once; the values of steps are a list");
            }
            StageError::new(format!("the metrics in `{file}` are not JSON")).because(err)
        })?;
        json(file, &value)?
    } else {
        let found = table::read(file, text)?;
        let is_empty = found.is_empty();
        (found, is_empty)
    };
    if is_empty {
        let help = "write JSON such as `{\"accuracy\": 0.5}`, or `{}` if there are none; \
                    or CSV: a line of names, numbers below it";
        return Err(StageError::new(format!("no metrics are in `{file}`")).help(help));
    }
    Ok(found)
}

/// `text`, in which `null` stands for what Python's `json` writes for numbers that are not finite.
fn with_nulls(text: &str) -> String {
    const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    let mut out = String::with_capacity(text.len());
    let mut in_text = false;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        let word = NOT_FINITE.iter().find(|word| !in_text && text[at..].starts_with(**word));
        match word {
            Some(word) => {
                out.push_str("null");
                letters.nth(word.len() - 2);
            }
            None => {
                out.push(letter);
                if in_text && letter == '\\' {
                    out.extend(letters.next().map(|(_, escaped)| escaped));
                }
                in_text ^= letter == '"';
            }
        }
    }
    out
}

/// The final values of metrics that have steps alone: those of the last steps.
fn last_values(found: &[Event]) -> Vec<Event> {
    let mut last = BTreeMap::new();
    let mut finals = HashSet::new();
    for event in found {
        match event {
            Event::Metric { name, step: Some(step), value } => {
                let known = last.entry(name).or_insert((step, value));
                if known.0 <= step {
                    *known = (step, value);
                }
            }
            Event::Metric { name, step: None, .. } => {
                finals.insert(name);
            }
            _ => {}
        }
    }
    last.retain(|name, _| !finals.contains(name));
    last.into_iter().map(|(name, (_, value))| metric(name, None, *value)).collect()
}

/// The text of the file; a command may have left anything in its place.
fn contents(file: &str, path: &Path) -> Result<String, StageError> {
    let unreadable = |err| StageError::new(format!("cannot read the metrics in `{file}`")).because(err);
    let help = "the command must write a file to `{metrics}`";
    match std::fs::metadata(path) {
        // A fifo would be waited for.
        Ok(found) if !found.is_file() => {
            Err(StageError::new(format!("the metrics `{file}` are no file")).help(help))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let missing = format!("the command ended without writing its metrics `{file}`");
            Err(StageError::new(missing).help(help))
        }
        Ok(_) => std::fs::read_to_string(path).map_err(unreadable),
        Err(err) => Err(unreadable(err)),
    }
}

/// Where a value belongs: no two of one file belong to the same place.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) name: &'a str,
    pub(super) step: Option<u64>,
}

impl<'a> Found<'a> {
    /// The place of `event`, if that is a metric.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        match event {
            Event::Metric { name, step, .. } => Some(Self { name, step: *step }),
            _ => None,
        }
    }
}

/// A value of a metric; one that is not finite is undefined.
pub(super) fn metric(name: &str, step: Option<u64>, value: Option<f64>) -> Event {
    Event::Metric { name: name.to_owned(), step, value: value.filter(|value| value.is_finite()) }
}

/// The numbers in `value`, and whether something was written in which there are none.
fn json(file: &str, value: &Value) -> Result<(Vec<Event>, bool), StageError> {
    if let Value::Array(items) = value
        && !items.iter().any(|item| item.is_object() || item.is_array())
    {
        let help = "give the list a name: `{\"loss\": [3, 2.5]}`";
        return Err(StageError::new(format!("the metrics in `{file}` are a list without a name")).help(help));
    }
    let mut found = Vec::new();
    walk(String::new(), value, &mut found);
    let mut seen = HashSet::new();
    if let Some(twice) = found.iter().filter_map(Found::of).find(|what| !seen.insert(*what)) {
        let message = format!("two values of the metrics in `{file}` are called `{}`", twice.name);
        return Err(StageError::new(message).help("a dot in a name leads into a map: name one otherwise"));
    }
    let is_empty = found.is_empty() && holds_text(value);
    Ok((found, is_empty))
}

fn holds_text(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.values().any(holds_text),
        Value::Array(items) => items.iter().any(holds_text),
        Value::String(_) => true,
        _ => false,
    }
}

fn walk(path: String, value: &Value, found: &mut Vec<Event>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| walk(below(name), value, found)),
        Value::Array(items)
            if !path.is_empty() && items.iter().all(|item| item.is_number() || item.is_null()) =>
        {
            let steps = (1..).zip(items);
            found.extend(steps.map(|(step, item)| metric(&path, Some(step), item.as_f64())));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| walk(below(&at.to_string()), item, found));
        }
        Value::Number(number) => found.push(metric(&path, None, number.as_f64())),
        Value::Bool(value) => found.push(metric(&path, None, Some(f64::from(u8::from(*value))))),
        Value::Null if !path.is_empty() => found.push(metric(&path, None, None)),
        Value::Null | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Event>, StageError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(&[Metrics { name: "m".into(), path: file.path().into() }])
    }

    fn told(text: &str) -> String {
        let lines = parsed(text).unwrap().into_iter().map(|event| match event {
            Event::Metric { name, step, value } => {
                let step = step.map(|step| format!("@{step}")).unwrap_or_default();
                format!("{name}{step}={}", value.map_or("none".into(), |value| value.to_string()))
            }
            other => panic!("{other:?}"),
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    fn refused(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn json_gives_dotted_names_and_steps() {
        let text =
            r#"{"accuracy": 0.5, "by": {"class": {"a": 1}}, "bad": null, "note": "x", "loss": [3, 2.5]}"#;
        assert_eq!(told(text), "accuracy=0.5 bad=none by.class.a=1 loss@1=3 loss@2=2.5 loss=2.5");
        assert_eq!(told("{}"), "");
        assert_eq!(told(r#"[{"loss": 1}, {"loss": 2}]"#), "0.loss=1 1.loss=2");
    }

    #[test]
    fn csv_gives_a_metric_a_line_or_a_column() {
        assert_eq!(told("name,value\nloss,0.5\nf1,nan\n"), "loss=0.5 f1=none");
        assert_eq!(told("metric,step,value\nloss,10,0.5\nloss,,0.4\n"), "loss@10=0.5 loss=0.4");
        assert_eq!(told("loss,accuracy,note\n0.5,1,x\n"), "loss=0.5 accuracy=1");
        assert_eq!(told("epoch,loss\n1,0.5\n2,0.25\n"), "loss@1=0.5 loss@2=0.25 loss=0.25");
        assert_eq!(told("loss\n3\n2\n"), "loss@1=3 loss@2=2 loss=2");
        assert_eq!(told(",loss,\n0,3,\n1,2,\n"), "loss@1=3 loss@2=2 loss=2");
    }

    #[test]
    fn steps_are_those_of_the_column_step_however_many_lines_there_are() {
        assert_eq!(told("step,loss\n5,0.7\n"), "loss@5=0.7 loss=0.7");
        assert_eq!(told("Step,loss\n5,0.7\n6.0,1\n"), "loss@5=0.7 loss@6=1 loss=1");
        assert_eq!(
            told("epoch,step,loss\n1,100,1\n1,200,.5\n"),
            "epoch@100=1 loss@100=1 epoch@200=1 loss@200=0.5 epoch=1 loss=0.5"
        );
        assert_eq!(told("step,loss,valid\n5,0.7,\n5,,NA\n"), "loss@5=0.7 valid@5=none loss=0.7 valid=none");
        for wrong in ["-1", "x", "0.5", "99999999999999999999", ""] {
            assert!(refused(&format!("step,loss\n1,1\n{wrong},1\n")).starts_with("line 3 "), "{wrong}");
        }
        assert!(refused("step,loss\n5,1\n\n5,2\n").starts_with("lines 2 and 4 "));
    }

    #[test]
    fn epochs_that_cannot_be_steps_are_a_metric() {
        assert_eq!(told("epoch,loss\n1,1\n"), "loss@1=1 loss=1");
        assert_eq!(told("epoch,loss\n0.5,1\n"), "epoch@1=0.5 loss@1=1 epoch=0.5 loss=1");
        assert_eq!(told("epoch,loss\n0,4\n0,3\n"), "epoch@1=0 loss@1=4 epoch@2=0 loss@2=3 epoch=0 loss=3");
    }

    #[test]
    fn texts_that_tell_values_of_a_step_apart_begin_their_names() {
        assert_eq!(
            told("epoch,split,loss\n1,train,3\n1,val,4\n2,train,2\n"),
            "train.loss@1=3 val.loss@1=4 train.loss@2=2 train.loss=2 val.loss=4"
        );
        assert_eq!(told("step,on,at,f1\n1,a,x,3\n1,a,y,4\n"), "a.x.f1@1=3 a.y.f1@1=4 a.x.f1=3 a.y.f1=4");
        assert_eq!(told("epoch,note,loss\n1,a,3\n2,b,2\n"), "loss@1=3 loss@2=2 loss=2");
        assert!(refused("step,note,loss\n1,a,3\n1,a,2\n").starts_with("lines 2 and 3 "));
    }

    #[test]
    fn no_value_is_lost_in_silence() {
        assert_eq!(
            refused("step,loss\n1,0.5\n2,oops\n"),
            "line 3 of the metrics in `m` has `oops` in column `loss`, which is no number"
        );
        assert!(refused("name,value\nx,oops\n").contains("`oops` in column `value`"));
        assert!(refused("name,value\nx,1\nx,2\n").starts_with("lines 2 and 3 "));
        assert!(refused("name,step,value\nx,0.25,1\n").contains("`0.25` in column `step`"));
        assert!(refused("loss,loss\n1,2\n").contains("two columns"));
        assert!(refused(r#"{"x": {"y": 1}, "x.y": 2}"#).contains("called `x.y`"));
        assert_eq!(
            refused("{\"by\": {\"x\": 1,\n \"x\": 2}}"),
            "the metrics in `m` give `by.x` a second time at line 2 column 4"
        );
        assert!(refused("[1, 2, 3]").contains("a list without a name"));
        for empty in ["", "5", "null", "accuracy 0.9", "step;loss\n1;2\n", r#"{"loss": "0.5"}"#] {
            assert_eq!(refused(empty), "no metrics are in `m`", "{empty}");
        }
    }

    #[test]
    fn what_python_writes_for_numbers_that_are_not_finite_is_undefined() {
        let text = r#"{"loss": NaN, "by": [1, -Infinity,Infinity], "note": "NaN \" Infinity", "NaN": 2}"#;
        assert_eq!(told(text), "NaN=2 by@1=1 by@2=none by@3=none loss=none by=none");
        for wrong in [r#"{"loss": nan}"#, r#"{"loss": -NaN}"#, r#"{"loss": NaNN}"#] {
            assert_eq!(refused(wrong), "the metrics in `m` are not JSON", "{wrong}");
        }
    }

    #[test]
    fn the_final_value_of_steps_is_that_of_the_last_one() {
        assert_eq!(told("step,loss\n20,1\n10,2\n"), "loss@20=1 loss@10=2 loss=1");
        assert_eq!(told("name,step,value\nloss,1,3\nloss,2,4\nloss,,2\n"), "loss@1=3 loss@2=4 loss=2");
    }
}
