//! Where two files differ, and by how much: tensors by element, texts by line and number,
//! everything else by byte. Files are read in pieces, so their size does not matter.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;

/// How much of a file is held at a time, bytes; a multiple of every element's size.
const PIECE: usize = 1 << 20;
/// Longest header of a tensor file, as `safetensors` has it.
const LONGEST_HEADER: u64 = 100_000_000;
/// Longest piece of a line that is shown, in characters.
const SHOWN: usize = 40;

/// How two files compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// The same bytes.
    Identical,
    /// Other bytes, but the same within the tolerance.
    Within {
        /// The largest [`deviation`].
        largest: f64,
    },
    /// More than the tolerance apart.
    Different {
        /// The first place, with what is there in both.
        place: String,
        /// The largest [`deviation`], where numbers could be compared.
        largest: Option<f64>,
    },
}

/// How far apart two numbers are: absolutely, and relative to the larger one where that is above 1.
pub fn deviation(old: f64, new: f64) -> f64 {
    let is_same = old.to_bits() == new.to_bits() || (old.is_nan() && new.is_nan());
    match (old - new).abs() / old.abs().max(new.abs()).max(1.0) {
        _ if is_same => 0.0,
        apart if apart.is_nan() => f64::INFINITY,
        apart => apart,
    }
}

/// Compares two files; numbers may be `tolerance` apart, and with 0 every byte counts.
pub fn compare(old: &Path, new: &Path, tolerance: f64) -> io::Result<Comparison> {
    if let (Some(before), Some(after)) = (Tensors::open(old)?, Tensors::open(new)?) {
        return tensors(before, after, tolerance);
    }
    if is_text(old)? && is_text(new)? { lines(old, new, tolerance) } else { bytes(old, new) }
}

/// The largest deviation so far, and the first place that is too far apart.
struct Seen {
    tolerance: f64,
    largest: f64,
    place: Option<String>,
    is_identical: bool,
}

impl Seen {
    fn new(tolerance: f64) -> Self {
        Self { tolerance, largest: 0.0, place: None, is_identical: true }
    }

    /// Two numbers that are not written the same.
    fn number(&mut self, old: f64, new: f64, place: impl FnOnce() -> String) {
        self.is_identical = false;
        let apart = deviation(old, new);
        self.largest = self.largest.max(apart);
        if (apart > self.tolerance || self.tolerance <= 0.0) && self.place.is_none() {
            self.place = Some(place());
        }
    }

    fn comparison(self) -> Comparison {
        let Self { largest, place, is_identical, .. } = self;
        match place {
            Some(place) => Comparison::Different { place, largest: Some(largest) },
            None if is_identical => Comparison::Identical,
            None => Comparison::Within { largest },
        }
    }
}

fn different(place: String) -> Comparison {
    Comparison::Different { place, largest: None }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A tensor file whose header was read.
struct Tensors {
    file: File,
    /// Where the elements begin.
    start: u64,
    metadata: Value,
    entries: BTreeMap<String, Entry>,
}

impl Tensors {
    /// Reads the header of `path`; `None` if that is no whole tensor file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut length = [0; 8];
        if size < 8 {
            return Ok(None);
        }
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER || length > size - 8 {
            return Ok(None);
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text)?;
        let Ok(mut header) = serde_json::from_slice::<BTreeMap<String, Value>>(&text) else {
            return Ok(None);
        };
        let metadata = header.remove("__metadata__").unwrap_or_default();
        let entries = header.into_iter().map(|(name, entry)| Ok((name, serde_json::from_value(entry)?)));
        let Ok(entries) = entries.collect::<Result<BTreeMap<String, Entry>, serde_json::Error>>() else {
            return Ok(None);
        };
        let start = 8 + length;
        let is_whole = entries.values().all(|entry| {
            let bits: usize = entry.shape.iter().product::<usize>() * entry.dtype.bitsize();
            let (from, to) = entry.data_offsets;
            from <= to && start + to <= size && to - from == bits as u64 / 8
        });
        Ok(is_whole.then_some(Self { file, start, metadata, entries }))
    }

    fn read(&mut self, at: u64, piece: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.start + at))?;
        self.file.read_exact(piece)
    }
}

fn tensors(mut old: Tensors, mut new: Tensors, tolerance: f64) -> io::Result<Comparison> {
    for name in old.entries.keys().chain(new.entries.keys()) {
        let kind = |tensors: &Tensors| {
            let entry = tensors.entries.get(name);
            entry.map_or_else(|| "none".into(), |entry| format!("{} {:?}", entry.dtype, entry.shape))
        };
        let (before, after) = (kind(&old), kind(&new));
        if before != after {
            return Ok(different(format!("tensor `{name}`: {before} → {after}")));
        }
    }
    if old.metadata != new.metadata {
        return Ok(different(format!("metadata: {} → {}", old.metadata, new.metadata)));
    }
    let mut seen = Seen::new(tolerance);
    let (mut a, mut b) = (vec![0; PIECE], vec![0; PIECE]);
    for (name, entry) in old.entries.clone() {
        let length = entry.data_offsets.1 - entry.data_offsets.0;
        let other = new.entries[&name].data_offsets.0;
        let mut done = 0;
        while done < length {
            let take = PIECE.min((length - done) as usize);
            old.read(entry.data_offsets.0 + done, &mut a[..take])?;
            new.read(other + done, &mut b[..take])?;
            if a[..take] != b[..take] {
                elements(&mut seen, &name, entry.dtype, done, (&a[..take], &b[..take]));
            }
            done += take as u64;
        }
    }
    Ok(seen.comparison())
}

/// Compares pieces of a tensor that begin `at` bytes from its start.
fn elements(seen: &mut Seen, name: &str, dtype: Dtype, at: u64, (old, new): (&[u8], &[u8])) {
    let size = (dtype.bitsize() / 8).max(1);
    for (index, (a, b)) in old.chunks_exact(size).zip(new.chunks_exact(size)).enumerate() {
        if a == b {
            continue;
        }
        let index = at as usize / size + index;
        let place = |a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
            format!("tensor `{name}`[{index}]: {a} → {b}")
        };
        if let (Some(x), Some(y)) = (float(dtype, a), float(dtype, b)) {
            seen.number(x, y, || place(&x, &y));
        } else {
            // Whole numbers are counts and names: no tolerance.
            seen.is_identical = false;
            let whole = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
            seen.place.get_or_insert_with(|| place(&whole(a), &whole(b)));
        }
    }
}

fn float(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    match (dtype, bytes) {
        (Dtype::F64, bytes) => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        (Dtype::F32, bytes) => Some(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        (Dtype::F16, bytes) => Some(f16::from_le_bytes(bytes.try_into().ok()?).into()),
        (Dtype::BF16, bytes) => Some(bf16::from_le_bytes(bytes.try_into().ok()?).into()),
        _ => None,
    }
}

fn is_text(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(8192).read_to_end(&mut start)?;
    Ok(!start.contains(&0))
}

fn lines(old: &Path, new: &Path, tolerance: f64) -> io::Result<Comparison> {
    let (mut a, mut b) = (BufReader::new(File::open(old)?), BufReader::new(File::open(new)?));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut headings = Vec::new();
    let mut seen = Seen::new(tolerance);
    for number in 1.. {
        before.clear();
        after.clear();
        a.read_until(b'\n', &mut before)?;
        b.read_until(b'\n', &mut after)?;
        if before.is_empty() && after.is_empty() {
            break;
        }
        if number == 1 {
            headings = cells(&String::from_utf8_lossy(&before));
        }
        if before != after {
            let (before, after) = (String::from_utf8_lossy(&before), String::from_utf8_lossy(&after));
            if !line(&mut seen, number, &headings, &before, &after) {
                break;
            }
        }
    }
    Ok(match seen.place {
        // Where words differ, what numbers differ by says nothing.
        Some(place) if seen.largest == 0.0 => different(place),
        _ => seen.comparison(),
    })
}

fn cells(line: &str) -> Vec<String> {
    line.trim_end().split(',').map(str::to_owned).collect()
}

/// Compares two lines that are not the same; `false` when more than numbers differ.
fn line(seen: &mut Seen, number: usize, headings: &[String], old: &str, new: &str) -> bool {
    let (before, after) = (cells(old), cells(new));
    let is_table = headings.len() > 1 && before.len() == headings.len() && after.len() == headings.len();
    let place = || {
        let column = before.iter().zip(&after).position(|(a, b)| a != b).filter(|_| is_table);
        match column {
            Some(at) => {
                format!("line {number}, `{}`: {} → {}", headings[at], shown(&before[at]), shown(&after[at]))
            }
            None => format!("line {number}: {} → {}", shown(old), shown(new)),
        }
    };
    let (a, b) = (pieces(old), pieces(new));
    let fits = a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| a == b || (number_of(a).is_some() && number_of(b).is_some()));
    if !fits {
        seen.is_identical = false;
        seen.place.get_or_insert_with(place);
        return false;
    }
    for (old, new) in a.iter().zip(&b).filter(|(a, b)| a != b) {
        let is_whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if let (Some(x), Some(y)) = (number_of(old), number_of(new)) {
            seen.number(x, y, place);
            if is_whole(old) && is_whole(new) {
                // Whole numbers are counts and names: no tolerance.
                seen.place.get_or_insert_with(place);
            }
        }
    }
    true
}

/// `line` cut into numbers and what stands between them.
fn pieces(line: &str) -> Vec<&str> {
    let bytes = line.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let (mut pieces, mut from, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if !is_digit(at) {
            at += 1;
            continue;
        }
        let has_sign = at > from && bytes[at - 1] == b'-';
        let start = at - usize::from(has_sign);
        while is_digit(at) || (bytes.get(at) == Some(&b'.') && is_digit(at + 1)) {
            at += 1;
        }
        let exponent = at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'-' | b'+')));
        if matches!(bytes.get(at), Some(b'e' | b'E')) && is_digit(exponent) {
            at = exponent;
            while is_digit(at) {
                at += 1;
            }
        }
        pieces.extend([&line[from..start], &line[start..at]]);
        from = at;
    }
    pieces.push(&line[from..]);
    pieces
}

fn number_of(piece: &str) -> Option<f64> {
    piece.ends_with(|c: char| c.is_ascii_digit()).then(|| piece.parse().ok()).flatten()
}

fn shown(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn bytes(old: &Path, new: &Path) -> io::Result<Comparison> {
    let (mut a, mut b) = (BufReader::new(File::open(old)?), BufReader::new(File::open(new)?));
    let mut at = 0;
    loop {
        let (before, after) = (a.fill_buf()?, b.fill_buf()?);
        let both = before.len().min(after.len());
        if let Some(first) = before.iter().zip(after).position(|(a, b)| a != b) {
            let (x, y) = (before[first], after[first]);
            return Ok(different(format!("byte {}: 0x{x:02x} → 0x{y:02x}", at + first)));
        }
        if both == 0 {
            break;
        }
        a.consume(both);
        b.consume(both);
        at += both;
    }
    let (x, y) = (a.get_ref().metadata()?.len(), b.get_ref().metadata()?.len());
    Ok(if x == y { Comparison::Identical } else { different(format!("{x} bytes → {y} bytes")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(old: &[u8], new: &[u8], tolerance: f64) -> Comparison {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("old"), folder.path().join("new")];
        std::fs::write(&paths[0], old).unwrap();
        std::fs::write(&paths[1], new).unwrap();
        compare(&paths[0], &paths[1], tolerance).unwrap()
    }

    fn place(old: impl AsRef<[u8]>, new: impl AsRef<[u8]>, tolerance: f64) -> String {
        match compared(old.as_ref(), new.as_ref(), tolerance) {
            Comparison::Different { place, .. } => place,
            other => format!("{other:?}"),
        }
    }

    fn tensor_file(values: &[f32]) -> Vec<u8> {
        let header = crate::data::tensor_file::header(
            &BTreeMap::new(),
            &[("n", Dtype::I32, &[1]), ("w", Dtype::F32, &[values.len()])],
        );
        [header, 7i32.to_le_bytes().to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()]
            .concat()
    }

    #[test]
    fn tensors_are_compared_by_element() {
        let (old, new) = (tensor_file(&[1.0, 2.0, 4.0]), tensor_file(&[1.0, 2.5, 5.0]));
        assert_eq!(place(&old, &old, 0.0), "Identical");
        assert_eq!(place(&old, &new, 0.0), "tensor `w`[1]: 2 → 2.5");
        let Comparison::Different { largest, .. } = compared(&old, &new, 0.0) else { unreachable!() };
        assert_eq!(largest, Some(0.2));
        assert_eq!(compared(&old, &new, 0.2), Comparison::Within { largest: 0.2 });
        assert_eq!(place(&old, tensor_file(&[1.0]), 1.0), "tensor `w`: F32 [3] → F32 [1]");
        assert_eq!(place(&old, tensor_file(&[1.0, f32::NAN, 4.0]), 1.0), "tensor `w`[1]: 2 → NaN");
        assert_eq!(
            place(&old, &old[..old.len() - 1], 1.0),
            "116 bytes → 115 bytes"
                .replace("116", &old.len().to_string())
                .replace("115", &(old.len() - 1).to_string())
        );
        let mut counted = old.clone();
        let count = counted.len() - 16;
        counted[count] = 8;
        assert_eq!(place(&old, &counted, 10.0), "tensor `n`[0]: 7 → 8", "counts have no tolerance");
    }

    #[test]
    fn tables_are_compared_by_cell_and_texts_by_line() {
        let old = "id,label,score\na_1,1,0.50\nb_2,0,-0.25\n";
        assert_eq!(place(old, old.replace("-0.25", "-0.35"), 0.01), "line 3, `score`: `-0.25` → `-0.35`");
        let near = old.replace("0.50", "0.501");
        assert_eq!(place(old, &near, 0.0), "line 2, `score`: `0.50` → `0.501`");
        let Comparison::Within { largest } = compared(old.as_bytes(), near.as_bytes(), 0.01) else {
            panic!("within a hundredth")
        };
        assert!((largest - 0.001).abs() < 1e-12);
        assert_eq!(place(old, old.replace("b_2", "b_3"), 9.0), "line 3, `id`: `b_2` → `b_3`");
        assert_eq!(place(old, &old[..26], 1.0), "line 3: `b_2,0,-0.25` → ``");
        assert_eq!(
            place("{\"a\": 1e-3}\n", "{\"a\": 1.1e-3}\n", 1e-3),
            "Within { largest: 0.00010000000000000005 }"
        );
        assert_eq!(place("one\n", "two\n", 1.0), "line 1: `one` → `two`");
        assert_eq!(
            place("0.5", "0.50", 0.0),
            "line 1: `0.5` → `0.50`",
            "without a tolerance every byte counts"
        );
    }

    #[test]
    fn other_files_are_compared_by_byte() {
        assert_eq!(place([0, 1, 2], [0, 1, 3], 1.0), "byte 2: 0x02 → 0x03");
        assert_eq!(place([0, 1, 2], [0, 1], 1.0), "3 bytes → 2 bytes");
        assert_eq!(place([0; 3], [0; 3], 1.0), "Identical");
    }
}
