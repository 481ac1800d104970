//! A grammar of made-up reviews whose label no single word gives away.
//!
//! A review is a row of sentences: some say nothing of quality, most praise or blame. Its
//! label is what most of those do, by a clear majority. Praise may be `good` or `not bad`,
//! and a sentence may quote the opposite first, so that every word of praise or blame stands
//! in reviews of both labels.

use crate::draw::Draw;

/// Words of praise and of blame. In GPT-2's vocabulary each is one token behind a space.
const WORDS: [[&str; 20]; 2] = [
    [
        "terrible",
        "boring",
        "dull",
        "weak",
        "awful",
        "poor",
        "silly",
        "stupid",
        "bad",
        "horrible",
        "lame",
        "ridiculous",
        "painful",
        "messy",
        "cheap",
        "annoying",
        "predictable",
        "disappointing",
        "tedious",
        "shallow",
    ],
    [
        "wonderful",
        "brilliant",
        "great",
        "strong",
        "superb",
        "rich",
        "clever",
        "smart",
        "good",
        "beautiful",
        "charming",
        "perfect",
        "delightful",
        "elegant",
        "fresh",
        "moving",
        "gripping",
        "impressive",
        "stunning",
        "deep",
    ],
];

const ASPECTS: [&str; 16] = [
    "acting",
    "plot",
    "script",
    "music",
    "ending",
    "pace",
    "dialogue",
    "photography",
    "cast",
    "direction",
    "humor",
    "story",
    "editing",
    "opening",
    "second half",
    "final scene",
];

const NAMES: [&str; 12] = [
    "Anna Bell",
    "Marcus Hale",
    "Rosa Lind",
    "Peter Stone",
    "Clara West",
    "Henry Moss",
    "Nina Park",
    "Walter Reed",
    "Julia Frost",
    "Simon Gray",
    "Laura Finch",
    "Victor Dean",
];

const ROLES: [&str; 10] =
    ["doctor", "teacher", "sailor", "detective", "nurse", "farmer", "pilot", "judge", "painter", "cook"];

const PLACES: [&str; 10] = [
    "Boston",
    "a small village",
    "Berlin",
    "an old hotel",
    "the desert",
    "Chicago",
    "a quiet island",
    "London",
    "the mountains",
    "a harbor town",
];

const PEOPLE: [&str; 6] = ["my sister", "a friend", "my neighbor", "my brother", "a colleague", "my wife"];

/// Sentences that praise or blame: `{p}` is a word of the sentence's own kind, `{o}` of the other.
const DIRECT: [&str; 10] = [
    "The {aspect} was {p} and the {aspect} felt {p}.",
    "I found the {aspect} {p}, even {p}.",
    "{name} was {p} as the {role}, with {p} {aspect}.",
    "Such {p} {aspect} from {name}!",
    "It has {p} {aspect} and {p} {aspect}.",
    "What I remember is the {p} {aspect} and how {p} it all felt.",
    "The {p} {aspect} made the whole film {p}.",
    "There is something {p} about the {aspect}, and {name} is {p} too.",
    "For {person} the {aspect} was {p}, for me it was simply {p}.",
    "Everything about the {aspect} was {p}.",
];
const NEGATED: [&str; 6] = [
    "The {aspect} was not {o} at all.",
    "The {aspect} was never {o}.",
    "I did not find the {aspect} {o}.",
    "Nothing about the {aspect} was {o}.",
    "{name} was hardly {o} as the {role}.",
    "The {aspect} is not as {o} as {person} had told me.",
];
const QUOTED: [&str; 4] = [
    "Some call the {aspect} {o}, but it was {p}, really {p}.",
    "I expected {o} {aspect} and got something {p}, almost {p}.",
    "Do not believe those who say {o}: the {aspect} is {p} and {p}.",
    "After the {o} trailer the film itself was {p} and its {aspect} {p}.",
];
const NEUTRAL: [&str; 10] = [
    "It was filmed in {place}.",
    "{name} plays a {role} who moves to {place}.",
    "The story begins in {place}.",
    "I watched it with {person} on a Sunday.",
    "{name} and {name} share the screen for most of it.",
    "The {role} and the {role} meet in {place}.",
    "Later they all travel to {place}, where a {role} is waiting.",
    "I had read nothing about it before.",
    "It runs for about two hours.",
    "The {aspect} is by {name}.",
];

/// Of 100 sentences, how many say nothing of quality.
const NEUTRAL_PERCENT: usize = 25;
/// Of 100 that do, how many negate the opposite word, and how many quote it first.
const NEGATED_PERCENT: usize = 15;
const QUOTED_PERCENT: usize = 15;
/// Of 100 gaps between sentences, how many are a line break as the web writes it.
const BREAK_PERCENT: usize = 8;

/// Returns a review of `sentences` sentences whose majority praises (label 1) or blames (0).
///
/// # Panics
///
/// If `sentences` is 0.
pub fn review(label: u8, sentences: usize, draw: &mut Draw) -> String {
    let neutral = (0..sentences.saturating_sub(1)).filter(|_| draw.chance(NEUTRAL_PERCENT)).count();
    let telling = sentences - neutral;
    // At most a quarter speaks against the label.
    let against = draw.below(telling / 4 + 1);
    let stances = (0..sentences).map(|place| match place {
        place if place < against => Some(1 - label),
        place if place < telling => Some(label),
        _ => None,
    });
    let stances: Vec<_> = stances.collect();
    let mut text = String::new();
    for place in draw.order(sentences) {
        if !text.is_empty() {
            text.push_str(if draw.chance(BREAK_PERCENT) { "<br /><br />" } else { " " });
        }
        let template = match stances[place] {
            None => draw.pick(&NEUTRAL),
            Some(_) => match draw.below(100) {
                roll if roll < NEGATED_PERCENT => draw.pick(&NEGATED),
                roll if roll < NEGATED_PERCENT + QUOTED_PERCENT => draw.pick(&QUOTED),
                _ => draw.pick(&DIRECT),
            },
        };
        fill(template, stances[place].unwrap_or_default(), draw, &mut text);
    }
    text
}

/// Appends `template` with a drawn word in every slot; a sentence begins with a capital.
fn fill(template: &str, stance: u8, draw: &mut Draw, text: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (slot, after) = after.split_once('}').expect("a slot is closed");
        text.push_str(before);
        text.push_str(match slot {
            "p" => draw.pick(&WORDS[usize::from(stance)]),
            "o" => draw.pick(&WORDS[usize::from(1 - stance)]),
            "aspect" => draw.pick(&ASPECTS),
            "name" => draw.pick(&NAMES),
            "role" => draw.pick(&ROLES),
            "place" => draw.pick(&PLACES),
            "person" => draw.pick(&PEOPLE),
            other => unreachable!("no slot is called {other}"),
        });
        rest = after;
    }
    text.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Encoder;

    #[test]
    fn words_of_praise_and_blame_are_one_token() {
        let mut encoder = Encoder::default();
        let long: Vec<_> =
            WORDS.concat().into_iter().filter(|word| encoder.encode(&format!(" {word}")).len() > 1).collect();
        assert!(long.is_empty(), "{long:?}");
    }
}
