//! Reviews as they are given to the model.

use std::borrow::Cow;

use memchr::memchr_iter;

/// Returns `text` without what matches `<.*?>`: from `<` to the next `>` on the same line.
/// Nothing is put in its place.
pub fn without_markup(text: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut from = 0;
    for start in memchr_iter(b'<', text.as_bytes()) {
        if start < from {
            continue;
        }
        let rest = &text.as_bytes()[start + 1..];
        // A tag ends before a line break or not at all.
        match memchr::memchr2(b'>', b'\n', rest) {
            Some(length) if rest[length] == b'>' => {
                kept.push_str(&text[from..start]);
                from = start + 1 + length + 1;
            }
            _ => {}
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[from..]);
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn removes_what_the_regular_expression_matches(text in "[<>a é\n\r]{0,40}") {
            let regex = regex::Regex::new("<.*?>").unwrap();
            prop_assert_eq!(without_markup(&text), regex.replace_all(&text, ""));
        }
    }
}
