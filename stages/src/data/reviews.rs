//! Labelled reviews, one JSON object a line.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::contract::StageError;

/// One labelled review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Names the review: its path below `aclImdb/`, such as `train/pos/3_10.txt`.
    pub id: String,
    /// 1 for a positive review, 0 for a negative one.
    pub label: u8,
    /// Stars out of 10, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<u8>,
    /// The review as it was written, markup included.
    pub text: String,
    /// Whether the review was made up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthetic: bool,
}

/// Writes one JSON object a line.
pub fn write_reviews<'a>(
    path: &Path,
    reviews: impl IntoIterator<Item = &'a Review>,
) -> Result<(), StageError> {
    let file = File::create(path).map_err(|err| StageError::io("create", path, err))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let write_all = || {
        for review in reviews {
            serde_json::to_writer(&mut file, review)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    write_all().map_err(|err| StageError::io("write", path, err))
}

/// Reads one JSON object a line; blank lines are skipped. An error names file and line.
pub fn read_reviews(path: &Path) -> Result<Vec<Review>, StageError> {
    let file = File::open(path).map_err(|err| StageError::io("read", path, err))?;
    let mut reviews = Vec::new();
    for (index, line) in BufReader::with_capacity(1 << 20, file).split(b'\n').enumerate() {
        let line = line.map_err(|err| StageError::io("read", path, err))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("line {} of `{}`", index + 1, path.display());
        let review: Review = serde_json::from_slice(&line).map_err(|err| {
            StageError::new(format!("{place} is no review"))
                .because(err)
                .help("a review is one JSON object a line with `id`, `label` (0 or 1) and `text`")
        })?;
        if review.label > 1 {
            let message = format!("{place} has label {}, wanted 0 or 1", review.label);
            return Err(StageError::new(message));
        }
        reviews.push(review);
    }
    Ok(reviews)
}
