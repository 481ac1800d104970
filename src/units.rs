//! How times, sizes and measured values are written for people.

use std::borrow::Cow;

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

/// How long before `now` something was: `3 hours ago`; the date when it is more than two weeks.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs();
    let count =
        |number: i64, unit: &str| format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" });
    match seconds {
        0..10 => "just now".into(),
        10..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => count(seconds / 3600, "hour"),
        86_400..1_209_600 => count(seconds / 86_400, "day"),
        _ => date(then),
    }
}

/// `2026-03-01 12:00:00 UTC`.
pub(crate) fn date_and_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// `0.04 s`, `8.5 s`, `1 min 30 s`, `2 h 05 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.995 => format!("{seconds:.2} s"),
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        ..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `734 MB`, in powers of 1000.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 999.5 {
            return format!("{value:.0} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} GB")
}

/// A measured value with about five digits; counts in full; an undefined one as `–`.
pub(crate) fn measured(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".into() };
    let magnitude = value.abs();
    if value.fract() == 0.0 && magnitude < 1e15 {
        return format!("{value:.0}");
    }
    match magnitude {
        ..1e-4 | 1e9.. => format!("{value:.4e}"),
        ..10.0 => format!("{value:.5}"),
        ..1e3 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    }
}

/// The difference of measured values, with its sign.
pub(crate) fn difference(value: Option<f64>) -> String {
    match value {
        Some(value) if value > 0.0 => format!("+{}", measured(Some(value))),
        value => measured(value),
    }
}

/// `0.71250`, or `0.71250 ± 0.00100` where there is a deviation.
pub(crate) fn mean_and_sd(mean: f64, sd: Option<f64>) -> String {
    let mean = measured(Some(mean));
    match sd {
        None => mean,
        // All digits of one this small would widen a column.
        Some(sd) if sd > 0.0 && sd < 1e-4 => format!("{mean} ± {sd:.1e}"),
        Some(sd) => format!("{mean} ± {}", measured(Some(sd))),
    }
}

/// `0.62`, `0.003`, `7.1e-6`.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        0.1.. => format!("{p:.2}"),
        0.001.. => format!("{p:.3}"),
        0.0 => "0".into(),
        _ => format!("{p:.1e}"),
    }
}

/// `text` with its middle left out where it takes more than `limit` cells of a terminal, and with control
/// characters made visible.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    let text = visible(text);
    if text.width() <= limit {
        return text.into_owned();
    }
    let head = begin(&text, limit / 2);
    let room = limit - 1 - limit / 2;
    let mut at = text.len();
    for (start, _) in text.char_indices().rev().take_while(|(start, _)| text[*start..].width() <= room) {
        at = start;
    }
    format!("{head}…{}", &text[at..])
}

/// As much of the beginning of `text` as fits into `cells` of a terminal.
pub(crate) fn begin(text: &str, cells: usize) -> &str {
    let mut end = 0;
    for (start, c) in text.char_indices() {
        let next = start + c.len_utf8();
        if text[..next].width() > cells {
            break;
        }
        end = next;
    }
    &text[..end]
}

/// `text` with control characters, which could move the cursor or change colours, as `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let seen = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(seen).collect::<String>().into()
}

/// `1 stage`, `2 stages`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_and_deviations_take_few_columns() {
        assert_eq!([0.62, 0.0031, 7.08e-6].map(p_value), ["0.62", "0.003", "7.1e-6"]);
        assert_eq!(mean_and_sd(0.7125, Some(0.001)), "0.71250 ± 0.00100");
        assert_eq!(mean_and_sd(0.7125, Some(2.5e-6)), "0.71250 ± 2.5e-6");
        assert_eq!(mean_and_sd(3.0, None), "3");
    }

    #[test]
    fn times_and_sizes_are_written_for_people() {
        let noon: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let at = |text: &str| ago(noon, text.parse().unwrap());
        assert_eq!(at("2026-03-01T12:00:09Z"), "just now");
        assert_eq!(at("2026-03-01T12:59:59Z"), "59 min ago");
        assert_eq!(at("2026-03-01T13:00:00Z"), "1 hour ago");
        assert_eq!(at("2026-03-03T11:00:00Z"), "1 day ago");
        assert_eq!(at("2026-04-03T11:00:00Z"), "2026-03-01");
        assert_eq!(at("2026-02-03T11:00:00Z"), "2026-03-01");
        let all = [0.004, 0.99, 8.46, 59.94, 59.96, 90.0, 3599.6, 7500.0].map(duration);
        assert_eq!(
            all,
            ["0.00 s", "0.99 s", "8.5 s", "59.9 s", "1 min 00 s", "1 min 30 s", "1 h 00 min", "2 h 05 min"]
        );
        assert_eq!(
            [0, 999, 1000, 734_003_200, 31_000_000_000].map(size),
            ["0 B", "999 B", "1 kB", "734 MB", "31.0 GB"]
        );
    }

    #[test]
    fn values_keep_about_five_digits() {
        let all = [0.0, 12500.0, 0.925_16, -0.001_2, 0.000_05, 123.456_7, 1234.56]
            .map(|value| measured(Some(value)));
        assert_eq!(all, ["0", "12500", "0.92516", "-0.00120", "5.0000e-5", "123.457", "1234.6"]);
        assert_eq!(
            [None, Some(0.5), Some(-0.5), Some(0.0)].map(difference),
            ["–", "+0.50000", "-0.50000", "0"]
        );
        assert_eq!(shortened("abcdefghij", 10), "abcdefghij");
        assert_eq!(shortened("abcdefghijk", 10), "abcde…hijk");
    }

    #[test]
    fn texts_are_measured_in_cells_and_control_characters_are_seen() {
        assert_eq!(shortened("数据集数据集", 12), "数据集数据集");
        assert_eq!(shortened("数据集数据集", 10), "数据…据集");
        assert_eq!(shortened("数据集数据集", 9), "数据…据集");
        assert_eq!(begin("数据 data", 5), "数据 ");
        assert_eq!(shortened("a\u{1b}[31mb\n", 40), "a\\u{1b}[31mb\\n");
    }
}
