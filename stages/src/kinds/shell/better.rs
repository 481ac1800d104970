//! Which way the metrics of a program should move, as its pipeline file says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::Better;

/// The direction in which a metric of a program improves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Smaller values are better.
    Lower,
    /// Larger values are better.
    Higher,
}

/// Which direction of `metric` is better, as the parameters `params` of a stage of this kind say.
///
/// The metric's own name goes before patterns, and of patterns that it matches the one with the most
/// characters beside `*`; where two of as many disagree, no direction is better.
pub fn better(params: &Value, metric: &str) -> Better {
    let Some(told) = params.get("better").and_then(Value::as_object) else { return Better::Neither };
    let direction = |told: &Value| Better::deserialize(told).unwrap_or(Better::Neither);
    if let Some(own) = told.get(metric) {
        return direction(own);
    }
    let matching = told.iter().filter(|(pattern, _)| matches(pattern, metric));
    let most = matching.clone().map(|(pattern, _)| letters(pattern)).max();
    let mut directions =
        matching.filter(|(pattern, _)| Some(letters(pattern)) == most).map(|(_, told)| direction(told));
    let first = directions.next().unwrap_or(Better::Neither);
    if directions.all(|other| other == first) { first } else { Better::Neither }
}

/// The names without `*` under `better`: metrics that a stage with these parameters should report.
pub fn named_by_better(params: &Value) -> impl Iterator<Item = &str> {
    let told = params.get("better").and_then(Value::as_object).into_iter().flatten();
    told.map(|(name, _)| name.as_str()).filter(|name| !name.contains('*'))
}

/// The characters of a pattern that must stand in a name.
fn letters(pattern: &str) -> usize {
    pattern.chars().filter(|c| *c != '*').count()
}

/// Whether `name` is what `pattern` stands for; a `*` stands for any characters, dots too.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "val.loss"),
            ("*loss", "loss"),
            ("*loss", "val.loss"),
            ("val.*", "val.by.class"),
            ("val*loss", "val.loss"),
            ("*a*a*", "banana"),
            ("**", "x"),
            ("größe*", "größe.x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*loss", "losses"),
            ("loss*", "val.loss"),
            ("loss", "val.loss"),
            ("val*loss", "val"),
            ("aba*ba", "aba"),
            ("*a*a*a*a*", "banana"),
            ("", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn the_name_goes_before_patterns_and_the_longest_pattern_before_others() {
        let params = json!({ "better": {
            "*": "lower",
            "*loss": "lower",
            "val.*": "higher",
            "*.rate": "lower",
            "gain.loss": "higher",
            "odd": "sideways",
        } });
        assert_eq!(better(&params, "gain.loss"), Better::Higher);
        assert_eq!(better(&params, "val.rate"), Better::Lower);
        assert_eq!(better(&params, "val.accuracy"), Better::Higher);
        assert_eq!(better(&params, "seconds"), Better::Lower);
        assert_eq!(better(&params, "val.loss"), Better::Neither, "two patterns of four letters disagree");
        assert_eq!(better(&params, "odd"), Better::Neither);
        assert_eq!(better(&json!({}), "loss"), Better::Neither);
        assert_eq!(named_by_better(&params).collect::<Vec<_>>(), ["gain.loss", "odd"]);
    }
}
