//! When two printed texts tell the same, though on another day and another machine.

use regex::Regex;

/// What differs between two runs of the same thing, and what stands for it.
const VARIES: [(&str, &str); 8] = [
    // A line that lists a run: how long ago it was decides how much of the rest finds room.
    (r"^\s*(run_\d+ +\w+) .*\b(ago|just now)\b.*$", "$1 ago"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "DATE"),
    (r"tfevents\.\d+", "tfevents.TIME"),
    (r"\b[\d.]+ (s|ms|min|h)\b( [\d.]+ (s|min)\b)?", "TIME"),
    (r"\b[\d.]+ [kMG]?i?B\b", "SIZE"),
    (r"\bcpu \([^)]*\)", "cpu"),
    (r"\b[0-9a-f]{12}\b", "DIGEST"),
    // Rules of tables.
    (r"[-─]{2,}:?", "-"),
];

/// Whether `shown` and `printed` differ in nothing but times, sizes, digests, widths and rounding. With
/// `is_any_order` their lines may come in any order, as stages that run side by side end.
pub fn tells_the_same(shown: &str, printed: &str, is_any_order: bool) -> bool {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(constant).filter(|line| !line.is_empty()).collect();
        if is_any_order {
            lines.sort_unstable();
        }
        lines
    };
    let (shown, printed) = (lines(shown), lines(printed));
    shown.len() == printed.len() && shown.iter().zip(&printed).all(|(a, b)| is_near(a, b))
}

/// The line without what varies, runs of spaces as one.
fn constant(line: &str) -> String {
    let line = VARIES.iter().fold(line.to_owned(), |line, (pattern, instead)| {
        Regex::new(pattern).unwrap().replace_all(&line, *instead).into_owned()
    });
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether two lines are equal but for numbers that another processor may round otherwise: whole ones
/// up to 20 are counts of stages and runs and have to be equal, others may differ by 5 % or 0.02.
fn is_near(shown: &str, printed: &str) -> bool {
    let number = Regex::new(r"\d+(\.\d+)?(e-?\d+)?").unwrap();
    let numbers = |line: &str| -> Vec<f64> {
        number.find_iter(line).map(|found| found.as_str().parse().unwrap()).collect()
    };
    let is_count = |value: f64| value <= 20.0 && value.fract() == 0.0;
    let near = |(a, b): (&f64, &f64)| {
        let margin = if is_count(*a) && is_count(*b) { 0.0 } else { (a * 0.05).max(0.02) };
        (a - b).abs() <= margin
    };
    number.replace_all(shown, "#") == number.replace_all(printed, "#")
        && numbers(shown).iter().zip(&numbers(printed)).all(near)
}

#[test]
fn texts_that_differ_in_times_and_rounding_tell_the_same() {
    let tell = |a, b| tells_the_same(a, b, false);
    assert!(tell("done gpt2   0.28 s  35 MB", "done gpt2  1 min 3 s   7.1 GB"));
    assert!(tell("accuracy 0.88833", "accuracy 0.88667"));
    assert!(tell("in.model: e1e66bd92276 → d22814ac79a4", "in.model: 000000000000 → 111111111111"));
    assert!(!tell("accuracy 0.88833", "accuracy 0.78833"));
    assert!(!tell("12 ran, 0 cached", "11 ran, 1 cached"));
    assert!(!tell("run lora", "cached lora"));
    assert!(!tell("a\nb", "a"));
    assert!(!tell("a\nb", "b\na") && tells_the_same("a\nb", "b\na", true));
}
