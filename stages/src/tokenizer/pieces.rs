//! Text cut into the pieces that are encoded apart.
//!
//! The cut is that of GPT-2's regular expression,
//! `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: contractions,
//! then runs of letters, of numbers and of other signs, each with one space before it, then
//! white space. A run of white space leaves its last character to what follows.

use std::sync::LazyLock;

use regex::Regex;

/// What a character is to the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Sign,
}

/// The class of every ASCII character.
const ASCII: [Class; 128] = {
    let mut classes = [Class::Sign; 128];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b' ' | 0x09..=0x0d => Class::Space,
            _ => Class::Sign,
        };
        byte += 1;
    }
    classes
};

/// The class of the first character of `text` and its length in bytes, if there is one.
#[inline]
fn class_at(text: &str, at: usize) -> Option<(Class, usize)> {
    let byte = *text.as_bytes().get(at)?;
    if byte.is_ascii() {
        return Some((ASCII[usize::from(byte)], 1));
    }
    let character = text[at..].chars().next()?;
    Some((class_of(character), character.len_utf8()))
}

/// The class by Unicode's general categories, as the crate `regex` knows them.
fn class_of(character: char) -> Class {
    static LETTER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{L}").expect("a valid pattern"));
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{N}").expect("a valid pattern"));
    let mut bytes = [0; 4];
    let text: &str = character.encode_utf8(&mut bytes);
    if character.is_whitespace() {
        Class::Space
    } else if LETTER.is_match(text) {
        Class::Letter
    } else if NUMBER.is_match(text) {
        Class::Number
    } else {
        Class::Sign
    }
}

/// The end of the run of `class` that goes on at `at`.
#[inline]
fn end_of_run(text: &str, class: Class, mut at: usize) -> usize {
    while let Some((next, length)) = class_at(text, at) {
        if next != class {
            break;
        }
        at += length;
    }
    at
}

/// The length of the contraction at the start of `text`, an apostrophe and one or two letters.
fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b'd' | b'm' | b't', ..] => Some(2),
        [b'\'', b'l', b'l', ..] | [b'\'', b'v' | b'r', b'e', ..] => Some(3),
        _ => None,
    }
}

/// Iterates over the pieces of `text`, which together are all of it.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let end = end_of_piece(text, start)?;
        let piece = &text[start..end];
        start = end;
        Some(piece)
    })
}

fn end_of_piece(text: &str, start: usize) -> Option<usize> {
    let (class, length) = class_at(text, start)?;
    if let Some(length) = contraction(&text.as_bytes()[start..]) {
        return Some(start + length);
    }
    if class != Class::Space {
        return Some(end_of_run(text, class, start + length));
    }
    if text.as_bytes()[start] == b' '
        && let Some((class, length)) = class_at(text, start + 1)
        && class != Class::Space
    {
        return Some(end_of_run(text, class, start + 1 + length));
    }
    let end = end_of_run(text, Class::Space, start);
    if end == text.len() {
        return Some(end);
    }
    let last = text[start..end].char_indices().next_back().map_or(0, |(place, _)| place);
    Some(if last == 0 { end } else { start + last })
}
