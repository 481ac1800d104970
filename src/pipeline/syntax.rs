//! What the parser says of a text that is not YAML, for people.

use std::{ops::Range, sync::Arc};

use super::{places::Text, problem::Finding};

/// What is wrong with `text`, where the parser stopped at the byte `at` with `message`.
pub(super) fn not_yaml(text: &Arc<Text>, message: &str, at: usize) -> Finding {
    let (words, places) = without_places(message);
    let begun = places.get(1).map(|place| one(text, byte(text, *place)));
    let noticed = one(text, at);
    if text.content[at..].starts_with('\t') {
        return Finding::new("not_yaml", "not valid YAML: a tab stands where only spaces may")
            .bytes(text, noticed, Some("this tab"))
            .help("indent with spaces".to_owned());
    }
    if words == "found unexpected end of stream, while scanning a quoted scalar" {
        let begun = begun.unwrap_or(0..1);
        let help = format!("close it with {}", &text.content[begun.clone()]);
        return Finding::new("not_yaml", "not valid YAML: a text in quotes does not end")
            .bytes(text, begun, Some("it begins here"))
            .help(help);
    }
    let found = Finding::new("not_yaml", format!("not valid YAML: {words}"));
    let found = found.bytes(text, noticed, Some("noticed here"));
    let (label, help) = match words.rsplit_once("while parsing a ").map_or("", |(_, part)| part) {
        "flow sequence" => ("the list begins here", None),
        "flow mapping" => ("the map begins here", None),
        "block mapping" => ("the map begins here", Some("the keys of a map begin in the same column")),
        "block collection" => ("the list begins here", Some("the items of a list begin in the same column")),
        _ => return found.help(quotes(&words, &text.content[at..])),
    };
    let found = found.help(help.map(str::to_owned));
    match begun {
        Some(begun) => found.bytes(text, begun, Some(label)),
        None => found,
    }
}

/// Where quotes were needed, that they are.
fn quotes(words: &str, rest: &str) -> Option<String> {
    if words == "mapping values are not allowed in this context" {
        return Some("a text with `: ` in it is written in quotes".into());
    }
    let first = rest.chars().next()?;
    words
        .starts_with("found character that cannot start any token")
        .then(|| format!("a text that begins with {first} is written in quotes"))
}

/// The parser's message without its " at line 1 column 2", and these lines and columns.
fn without_places(message: &str) -> (String, Vec<(usize, usize)>) {
    let mut parts = message.split(" at line ");
    let mut words = parts.next().unwrap_or_default().to_owned();
    let mut places = Vec::new();
    for part in parts {
        let (line, rest) = number(part);
        let (column, rest) = rest.strip_prefix(" column ").map_or((0, rest), number);
        places.push((line, column));
        words.push_str(rest);
    }
    (words, places)
}

/// The number that `text` begins with, and what follows it.
fn number(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].parse().unwrap_or(0), &text[end..])
}

/// The byte at a line and a column, both counted from 1, columns in characters.
fn byte(text: &Text, (line, column): (usize, usize)) -> usize {
    let before: usize = text.content.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let line = text.content[before..].char_indices().nth(column.saturating_sub(1));
    line.map_or(text.content.len(), |(at, _)| before + at)
}

/// The character at `at`, nothing at the end of a line.
fn one(text: &Text, at: usize) -> Range<usize> {
    at..at + text.content[at..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8)
}
