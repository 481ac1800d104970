//! Pieces to token ids, with a memory.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use tiktoken_rs::{CoreBPE, r50k_base_singleton};

use super::pieces;

/// Pieces remembered at most; real text has some 100,000 in 25,000 reviews.
const REMEMBERED: usize = 1 << 18;
/// Longer pieces are rare and not remembered.
const LONGEST_REMEMBERED: usize = 48;

/// Encodes text with GPT-2's vocabulary; special tokens in it are ordinary text.
///
/// Keep one a thread: it remembers the pieces it has met, and nothing in it is shared.
pub struct Encoder {
    vocabulary: &'static CoreBPE,
    /// Where in `memory` the ids of a piece are.
    known: HashMap<Box<str>, (u32, u32), FxBuildHasher>,
    memory: Vec<u32>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { vocabulary: r50k_base_singleton(), known: HashMap::default(), memory: Vec::new() }
    }
}

impl Encoder {
    /// Appends the ids of `text` to `ids`.
    pub fn encode_into(&mut self, text: &str, ids: &mut Vec<u32>) {
        for piece in pieces(text) {
            if let Some((start, end)) = self.known.get(piece) {
                ids.extend_from_slice(&self.memory[*start as usize..*end as usize]);
                continue;
            }
            // A piece by itself is cut no further.
            let found = self.vocabulary.encode_ordinary(piece);
            if piece.len() <= LONGEST_REMEMBERED && self.known.len() < REMEMBERED {
                let start = self.memory.len() as u32;
                self.memory.extend_from_slice(&found);
                self.known.insert(piece.into(), (start, self.memory.len() as u32));
            }
            ids.extend_from_slice(&found);
        }
    }

    /// The ids of `text`.
    pub fn encode(&mut self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids);
        ids
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text that stresses the cut: contractions, runs of spaces, letters and numbers of many scripts.
    fn text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            3 => "[ \t\n\r\u{a0}\u{3000}\u{85}\u{200b}]{1,4}",
            2 => "'(s|d|m|t|l|ll|ve|re|v|LL|S)?",
            3 => "[a-zA-Z]{1,12}",
            1 => "[0-9²½Ⅷ٣]{1,5}",
            1 => "[!?.,<>/*_\u{301}\u{ad}…“’—-]{1,5}",
            1 => "[éßжאनि日🎬🎬ǅʰⓐ]{1,4}",
            1 => any::<String>(),
        ];
        proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn gives_the_ids_of_tiktoken(text in text()) {
            let mut encoder = Encoder::default();
            let wanted = r50k_base_singleton().encode_ordinary(&text);
            prop_assert_eq!(encoder.encode(&text), wanted.clone());
            prop_assert_eq!(encoder.encode(&text), wanted, "from memory");
        }
    }

    #[test]
    fn special_tokens_are_ordinary_text() {
        assert_eq!(Encoder::default().encode("<|endoftext|>"), [27, 91, 437, 1659, 5239, 91, 29]);
    }
}
