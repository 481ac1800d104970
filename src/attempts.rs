//! How often and how long a stage may try; never what it computes.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Span, SpanRelativeTo};
use thiserror::Error;

/// What a stage says under `retry` and `timeout`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// How often it is started again after it failed.
    pub retry: u32,
    /// How long each attempt may take.
    pub timeout: Option<TimeLimit>,
}

/// A time that something may take, written `30m`, `1h 30m` or `2 days`; more than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit(pub Duration);

/// A text that is no time limit.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a time limit is written like `90s`, `30m`, `1h 30m` or `2d`, not `{0}`")]
pub struct NotATimeLimit(String);

impl FromStr for TimeLimit {
    type Err = NotATimeLimit;

    /// Reads numbers with units from milliseconds to weeks; a day is 24 hours.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotATimeLimit(text.to_owned());
        let span: Span = text.trim().parse().map_err(|_| wrong())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        let duration = Duration::try_from(duration).map_err(|_| wrong())?;
        if duration.is_zero() { Err(wrong()) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX);
        write!(f, "{duration:#}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_written_with_units() {
        let read = |text: &str| text.parse::<TimeLimit>().map(|limit| limit.0.as_secs_f64());
        assert_eq!(read("90s"), Ok(90.0));
        assert_eq!(read("1h 30m"), Ok(5400.0));
        assert_eq!(read("1.5h"), Ok(5400.0));
        assert_eq!(read("2 days"), Ok(172_800.0));
        assert_eq!(read("250ms"), Ok(0.25));
        for wrong in ["", "30", "soon", "-5m", "0s", "1 month", "5 m 3 h", "nan s"] {
            assert_eq!(read(wrong), Err(NotATimeLimit(wrong.into())), "{wrong}");
        }
        assert_eq!("5400s".parse::<TimeLimit>().unwrap().to_string(), "1h 30m");
        assert_eq!("250ms".parse::<TimeLimit>().unwrap().to_string(), "250ms");
    }
}
