//! What a stage may use while it runs; where and how fast, never what it computes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What a stage asks for under `resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Cores; `None` leaves it to the kind: all for one that runs a model, else one.
    pub cpus: Option<usize>,
    /// Memory; `None` is not counted.
    pub memory: Option<Bytes>,
    /// GPUs; `None` leaves it to the kind: one for one that runs a model where models compute on GPUs, else
    /// none.
    pub gpus: Option<usize>,
}

/// An amount of memory or disk in bytes, written `4GiB`, `512MB` or as a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A text that is not an amount of bytes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an amount of bytes is written like `4GiB`, `512MB` or `1048576`, not `{0}`")]
pub struct NotBytes(String);

const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

impl FromStr for Bytes {
    type Err = NotBytes;

    /// Reads a decimal number and an optional unit: `B`, `kB` … `TB` (thousands), `KiB` … `TiB`
    /// and `K` … `T` (1024), in upper or lower case, with or without a space before it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotBytes(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(unit));
        let (digits, scale) = unit.map_or((lower.as_str(), 1), |(unit, scale)| {
            (lower[..lower.len() - unit.len()].trim_end(), *scale)
        });
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(wrong());
        }
        if let Ok(count) = digits.parse::<u64>() {
            return count.checked_mul(scale).map(Bytes).ok_or_else(wrong);
        }
        if !digits.chars().all(|c| c.is_ascii_digit() || c == '.') || scale == 1 {
            return Err(wrong());
        }
        let bytes = digits.parse::<f64>().map_err(|_| wrong())? * scale as f64;
        if bytes < u64::MAX as f64 { Ok(Bytes(bytes.round() as u64)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that gives at least 1, with one decimal where it is not whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0..0x400 => ("B", 1),
            0x400..0x10_0000 => ("KiB", 1 << 10),
            0x10_0000..0x4000_0000 => ("MiB", 1 << 20),
            0x4000_0000..0x100_0000_0000 => ("GiB", 1 << 30),
            _ => ("TiB", 1u64 << 40),
        };
        let text = if self.0.is_multiple_of(scale) {
            format!("{} {unit}", self.0 / scale)
        } else {
            format!("{:.1} {unit}", self.0 as f64 / scale as f64)
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_thousands_and_in_powers_of_two() {
        let read = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(read("4GiB"), Ok(4 << 30));
        assert_eq!(read("512MB"), Ok(512_000_000));
        assert_eq!(read("1.5 gib"), Ok(3 << 29));
        assert_eq!(read("8G"), Ok(8 << 30));
        assert_eq!(read("1048576"), Ok(1 << 20));
        for wrong in ["", "GiB", "-1", "1e9", "1.5", "4 XiB", "99999999999TiB", "1..5GB", "nan", "inf GB"] {
            assert_eq!(read(wrong), Err(NotBytes(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn amounts_are_shown_in_the_largest_unit() {
        assert_eq!(Bytes(4 << 30).to_string(), "4 GiB");
        assert_eq!(Bytes(1_500_000).to_string(), "1.4 MiB");
        assert_eq!(Bytes(17).to_string(), "17 B");
    }
}
