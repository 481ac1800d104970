//! Metrics that a program wrote to a file of its own: JSON or CSV.

use std::path::Path;

use serde_json::Value;

use crate::contract::{Event, StageError};

/// Reads the metrics in `path`.
///
/// JSON: numbers by their dotted path, `null` for an undefined value, a list of numbers as the
/// values of steps from 1. CSV with columns `name` (or `metric`), `value` and perhaps `step`: a
/// metric a line. Any other CSV: a metric a column; the values are final if there is one line,
/// else those of steps, named by a column `step` or `epoch` or counted from 1. Texts are left out.
pub(super) fn read(path: &Path) -> Result<Vec<Event>, StageError> {
    let text = std::fs::read_to_string(path).map_err(|err| StageError::io("read metrics in", path, err))?;
    let mut found = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        let value: Value = serde_json::from_str(&text).map_err(|err| {
            StageError::new("the metrics are not JSON").because(err).help("write `null` for NaN or infinity")
        })?;
        walk(String::new(), &value, &mut found);
    } else {
        table(&text, &mut found).map_err(|err| StageError::new("the metrics are no CSV").because(err))?;
    }
    Ok(found)
}

fn metric(name: &str, step: Option<u64>, value: Option<f64>) -> Event {
    Event::Metric { name: name.to_owned(), step, value: value.filter(|value| value.is_finite()) }
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

fn table(text: &str, found: &mut Vec<Event>) -> Result<(), csv::Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column = |names: &[&str]| header.iter().position(|name| names.contains(&name));
    let lines = reader.records().collect::<Result<Vec<_>, _>>()?;
    let step_column = column(&["step", "epoch"]);
    let step_of = |line: &csv::StringRecord| {
        let step = step_column.and_then(|at| line.get(at)?.parse::<f64>().ok());
        step.map(|step| step as u64)
    };
    if let (Some(name), Some(value)) = (column(&["name", "metric"]), column(&["value"])) {
        for line in &lines {
            let value = line.get(value).and_then(|text| text.parse().ok());
            found.push(metric(line.get(name).unwrap_or_default(), step_of(line), value));
        }
        return Ok(());
    }
    for (at, line) in (1..).zip(&lines) {
        let step = if lines.len() == 1 { None } else { Some(step_of(line).unwrap_or(at)) };
        for (index, name) in header.iter().enumerate().filter(|(index, _)| Some(*index) != step_column) {
            if let Some(value) = line.get(index).and_then(|text| text.parse().ok()) {
                found.push(metric(name, step, Some(value)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let lines = read(file.path()).unwrap().into_iter().map(|event| match event {
            Event::Metric { name, step, value } => {
                let step = step.map(|step| format!("@{step}")).unwrap_or_default();
                format!("{name}{step}={}", value.map_or("none".into(), |value| value.to_string()))
            }
            other => panic!("{other:?}"),
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn json_gives_dotted_names_and_steps() {
        let text =
            r#"{"accuracy": 0.5, "by": {"class": {"a": 1}}, "bad": null, "note": "x", "loss": [3, 2.5]}"#;
        assert_eq!(told(text), "accuracy=0.5 bad=none by.class.a=1 loss@1=3 loss@2=2.5");
    }

    #[test]
    fn csv_gives_a_metric_a_line_or_a_column() {
        assert_eq!(told("name,value\nloss,0.5\nf1,nan\n"), "loss=0.5 f1=none");
        assert_eq!(told("metric,step,value\nloss,10,0.5\n"), "loss@10=0.5");
        assert_eq!(told("loss,accuracy,note\n0.5,1,x\n"), "loss=0.5 accuracy=1");
        assert_eq!(told("epoch,loss\n1,0.5\n2,0.25\n"), "loss@1=0.5 loss@2=0.25");
        assert_eq!(told("loss\n3\n2\n"), "loss@1=3 loss@2=2");
    }

    #[test]
    fn what_is_no_number_is_an_error_with_help() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"loss": NaN}"#).unwrap();
        let err = read(file.path()).unwrap_err();
        assert!(err.help_text().unwrap().contains("`null` for NaN"));
    }
}
