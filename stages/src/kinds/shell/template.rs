//! Texts with placeholders such as `{in.data}` and `{out.model}`.

use crate::contract::StageError;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Taken as it is.
    Text(&'a str),
    /// A placeholder's name, without braces; `in_quotes` says whether shell quotes are open there, and
    /// `is_word` whether it is a word of its own in a line for a shell.
    Placeholder { name: &'a str, in_quotes: bool, is_word: bool },
}

/// Cuts `text` at its placeholders.
///
/// A placeholder is `{name}` or `{name.name}`; `{{name}}` stands for the text `{name}`. Other
/// braces, such as those of `${HOME}`, `{a,b}` or JSON, are text.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let bytes = text.as_bytes();
    let (mut pieces, mut from, mut at) = (Vec::new(), 0, 0);
    let mut quote = None;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != Some(b'\'') => at += 1,
            mark @ (b'\'' | b'"') => match quote {
                None => quote = Some(mark),
                Some(open) if open == mark => quote = None,
                Some(_) => {}
            },
            b'{' => {
                let doubled = bytes.get(at + 1) == Some(&b'{');
                let start = at + 1 + usize::from(doubled);
                let end = start + name_length(&text[start..]);
                let closing = if doubled { "}}" } else { "}" };
                let is_variable = at > 0 && bytes[at - 1] == b'$';
                if end > start && text[end..].starts_with(closing) && !is_variable {
                    pieces.push(Piece::Text(&text[from..at]));
                    if doubled {
                        pieces.push(Piece::Text(&text[at + 1..=end]));
                    } else {
                        let after = bytes.get(end + closing.len());
                        let is_word = ends_word(at.checked_sub(1).map(|at| &bytes[at])) && ends_word(after);
                        pieces.push(Piece::Placeholder {
                            name: &text[start..end],
                            in_quotes: quote.is_some(),
                            is_word,
                        });
                    }
                    from = end + closing.len();
                    at = from;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    pieces.push(Piece::Text(&text[from..]));
    pieces
}

/// Whether a word of a shell is over at this byte, or at an end of the line.
fn ends_word(byte: Option<&u8>) -> bool {
    byte.is_none_or(|byte| byte.is_ascii_whitespace() || b";&|<>()`".contains(byte))
}

/// Puts words in for the placeholders of `line`, each quoted for the shell that runs it.
pub(super) fn fill_line(
    line: &str,
    words_of: &dyn Fn(&str) -> Result<Vec<String>, StageError>,
) -> Result<String, StageError> {
    let mut filled = String::with_capacity(line.len());
    for piece in pieces(line) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Placeholder { name, is_word, .. } => {
                let words = words_of(name)?;
                if words.len() > 1 && !is_word {
                    return Err(within_word(name, words.len()));
                }
                let quoted = shlex::try_join(words.iter().map(String::as_str)).map_err(|err| {
                    StageError::new(format!("`{{{name}}}` cannot be given to a shell")).because(err)
                })?;
                filled.push_str(&quoted);
            }
        }
    }
    Ok(filled)
}

/// Puts words in for the placeholders of `text`, which is one word unless it is a placeholder of several.
pub(super) fn fill_word(
    text: &str,
    words_of: &dyn Fn(&str) -> Result<Vec<String>, StageError>,
) -> Result<Vec<String>, StageError> {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Placeholder { name, .. } => match words_of(name)?.as_slice() {
                words if text.len() == name.len() + "{}".len() => return Ok(words.to_vec()),
                [word] => filled.push_str(word),
                words => return Err(within_word(name, words.len())),
            },
        }
    }
    Ok(vec![filled])
}

fn within_word(name: &str, count: usize) -> StageError {
    StageError::new(format!("`{{{name}}}` stands for {count} inputs and is part of a longer word"))
        .help("make it a word of its own")
}

/// Whether a command of the line is given what another one prints: there is a `|` outside of quotes.
pub(super) fn has_pipe(line: &str) -> bool {
    let (mut quote, mut before) = (None, ' ');
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quote != Some('\'') => {
                letters.next();
            }
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            _ if quote == Some(letter) => quote = None,
            // Neither `a || b` nor `a >| b`.
            '|' if quote.is_none() && before != '>' && letters.next_if_eq(&'|').is_none() => return true,
            _ => {}
        }
        before = letter;
    }
    false
}

/// How many bytes at the start of `text` are words of letters, digits and `_` joined by dots.
fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return 0;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    text[..end.unwrap_or(text.len())].trim_end_matches('.').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> String {
        fill_line(text, &|name| Ok(vec![format!("<{name}>")])).unwrap()
    }

    #[test]
    fn only_names_in_braces_are_placeholders() {
        assert_eq!(filled("a {in.x} b"), "a '<in.x>' b");
        for text in
            ["${HOME}", "{a,b}", "{}", "{ x }", "awk '{print $1}'", "{\"a\": {\"b\": 1}}", "{", "é{", "{x"]
        {
            assert_eq!(filled(text), text);
        }
        assert_eq!(filled("awk '{{print}}'"), "awk '{print}'");
        assert_eq!(filled("{a}{b}"), "'<a>''<b>'");
    }

    #[test]
    fn a_value_is_one_word_whatever_it_holds() {
        let nasty = "a b'; rm -rf \"$HOME\" `x`\n*";
        let line = fill_line("echo {in.x} end", &|_| Ok(vec![nasty.to_owned()])).unwrap();
        assert_eq!(shlex::split(&line).unwrap(), ["echo", nasty, "end"]);
        let line = fill_line("echo {in.x} end", &|_| Ok(vec![nasty.to_owned(); 2])).unwrap();
        assert_eq!(shlex::split(&line).unwrap(), ["echo", nasty, nasty, "end"]);
    }

    #[test]
    fn pipes_are_told_from_what_looks_like_one() {
        for line in ["a | b", "a|b", "a || b | c", "a 'x' | b", "a \\| b | c"] {
            assert!(has_pipe(line), "{line}");
        }
        for line in ["a || b", "a '|' b", "a \"x | y\"", "a \\| b", "a >| b", "a"] {
            assert!(!has_pipe(line), "{line}");
        }
    }

    #[test]
    fn placeholders_within_quotes_are_known() {
        let quoted = |text| {
            pieces(text).iter().any(|piece| matches!(piece, Piece::Placeholder { in_quotes: true, .. }))
        };
        assert!(quoted("echo \"{in.x}\""));
        assert!(quoted("echo '{in.x}'"));
        assert!(!quoted("echo \"a\" {in.x} 'b'"));
        assert!(!quoted("echo \\\"{in.x}"));
        assert!(quoted("echo \"it's {in.x}\""));
    }
}
