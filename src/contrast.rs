//! Values that differ, written short so that the difference is seen.

use std::collections::BTreeSet;

use serde_json::Value;

/// `values` as texts, of which `None` is `missing`: without quotes and on one line, but as JSON where only
/// that tells different values apart, or where control characters would reach the terminal.
pub(crate) fn texts(values: &[Option<&Value>], missing: &str) -> Vec<String> {
    let is_plain = |text: &str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    let loose = |value: &Value| match value {
        Value::String(text) if is_plain(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    let exact: Vec<Option<String>> = values.iter().map(|value| value.map(ToString::to_string)).collect();
    let written: Vec<String> =
        values.iter().map(|value| value.map_or_else(|| missing.to_owned(), loose)).collect();
    let distinct = |count: usize| exact.iter().collect::<BTreeSet<_>>().len() == count;
    if distinct(written.iter().collect::<BTreeSet<_>>().len()) {
        return written;
    }
    let is_ambiguous = |at: usize| {
        (0..written.len()).any(|other| written[other] == written[at] && exact[other] != exact[at])
    };
    let cell = |at: usize| match &exact[at] {
        Some(exact) if is_ambiguous(at) => exact.clone(),
        _ => written[at].clone(),
    };
    (0..values.len()).map(cell).collect()
}

/// Each of `texts` in at most `limit` characters, of longer ones the part around the first difference.
pub(crate) fn shortened(texts: &[String], limit: usize) -> Vec<String> {
    let letters: Vec<Vec<char>> = texts.iter().map(|text| text.chars().collect()).collect();
    let longest = letters.iter().map(Vec::len).max().unwrap_or(0);
    if longest <= limit {
        return texts.to_vec();
    }
    let first = (0..longest)
        .find(|at| letters.iter().any(|text| text.get(*at) != letters[0].get(*at)))
        // All are the same: their beginnings are shown.
        .unwrap_or(0);
    // A third of the room is for what stands before the difference; near the end there is more.
    let start = first.saturating_sub(limit / 3).min(longest.saturating_sub(limit - 1));
    let start = if start < 2 { 0 } else { start };
    let mut cut: Vec<String> = letters.iter().map(|text| part(text, start, limit)).collect();
    // Several that begin to differ later are told apart among themselves.
    for at in 0..cut.len() {
        let alike: Vec<usize> = (0..cut.len()).filter(|other| cut[*other] == cut[at]).collect();
        if alike.len() < cut.len() && alike.iter().any(|other| texts[*other] != texts[at]) {
            let among: Vec<String> = alike.iter().map(|other| texts[*other].clone()).collect();
            for (other, text) in alike.into_iter().zip(shortened(&among, limit)) {
                cut[other] = text;
            }
        }
    }
    cut
}

/// At most `limit` characters of `text` from `start` on, all of it where that is not more.
fn part(text: &[char], start: usize, limit: usize) -> String {
    if text.len() <= limit {
        return text.iter().collect();
    }
    let start = start.min(text.len());
    let room = limit - usize::from(start > 0);
    let is_cut = text.len() - start > room;
    let end = if is_cut { start + room - 1 } else { text.len() };
    let (before, after) = (if start > 0 { "…" } else { "" }, if is_cut { "…" } else { "" });
    format!("{before}{}{after}", text[start..end].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cut(texts: &[&str], limit: usize) -> Vec<String> {
        shortened(&texts.iter().map(ToString::to_string).collect::<Vec<_>>(), limit)
    }

    #[test]
    fn long_texts_are_cut_around_their_first_difference() {
        let numbers = (1..=40).map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        let command = |rate: &str| format!("echo {numbers} --lr {rate} {numbers}");
        insta::assert_debug_snapshot!(cut(&[&command("0.1"), &command("0.2")], 30), @r#"
        [
            "…40 --lr 0.1 1 2 3 4 5 6 7 8 …",
            "…40 --lr 0.2 1 2 3 4 5 6 7 8 …",
        ]
        "#);
        assert_eq!(cut(&["abcdefghijkx", "abcdefghijky"], 8), ["…fghijkx", "…fghijky"]);
        assert_eq!(cut(&["xbcdefghijkl", "ybcdefghijkl"], 8), ["xbcdefg…", "ybcdefg…"]);
        assert_eq!(cut(&["short", "abcdefghijkl"], 8), ["short", "abcdefg…"]);
    }

    #[test]
    fn values_of_other_types_are_told_apart_by_their_quotes() {
        let told = |a: Value, b: Option<Value>| texts(&[Some(&a), b.as_ref()], "none").join(" → ");
        assert_eq!(told(json!(1), Some(json!("1"))), r#"1 → "1""#);
        assert_eq!(told(json!("none"), None), r#""none" → none"#);
        assert_eq!(told(json!("a b"), Some(json!("a\nb"))), r#""a b" → "a\nb""#);
        assert_eq!(told(json!("a b"), Some(json!("a c"))), "a b → a c");
        assert_eq!(told(json!(null), None), "null → none");
        assert_eq!(told(json!("\u{1b}[31m"), None), r#""\u001b[31m" → none"#);
    }

    proptest! {
        #[test]
        fn texts_that_differ_are_cut_to_texts_that_differ(
            list in prop::collection::vec("[ab]{0,3}c{0,40}[ab]{0,3}c{0,40}[ab]", 1..3),
            limit in 8..20usize,
        ) {
            let cut = shortened(&list, limit);
            for (a, text) in list.iter().enumerate() {
                prop_assert!(cut[a].chars().count() <= limit);
                for (b, other) in list.iter().enumerate() {
                    prop_assert_eq!(text == other, cut[a] == cut[b], "{:?}", cut);
                }
            }
        }
    }
}
