//! What a classifier said of each review: CSV `id,length,label,score,prediction`.

use std::path::Path;

use csv::StringRecord;

use crate::contract::StageError;

/// The first line of the file.
const HEADER: [&str; 5] = ["id", "length", "label", "score", "prediction"];

/// What a classifier said of one review.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The review.
    pub id: String,
    /// Tokens of the whole review, before truncation.
    pub length: u32,
    /// 1 for a positive review, 0 for a negative one.
    pub label: u8,
    /// Probability that the review is positive, in `0.0..=1.0`.
    pub score: f64,
    /// What the classifier decided: 1 for positive, 0 for negative.
    pub prediction: u8,
}

/// Writes `rows` in their order; scores as the shortest decimals that read back the same.
///
/// # Errors
///
/// A score outside `0.0..=1.0`, which only a broken model gives, is an error that names the row.
pub fn write_predictions(path: &Path, rows: &[Prediction]) -> Result<(), StageError> {
    if let Some(row) = rows.iter().find(|row| !(0.0..=1.0).contains(&row.score)) {
        let message = format!("the score of `{}` is {}, which is no probability", row.id, row.score);
        return Err(StageError::new(message));
    }
    let failed = |err: csv::Error| StageError::new(format!("cannot write `{}`", path.display())).because(err);
    let mut file = csv::Writer::from_path(path).map_err(failed)?;
    file.write_record(HEADER).map_err(failed)?;
    for row in rows {
        file.write_record([
            row.id.as_str(),
            &row.length.to_string(),
            &row.label.to_string(),
            &row.score.to_string(),
            &row.prediction.to_string(),
        ])
        .map_err(failed)?;
    }
    file.flush().map_err(|err| StageError::io("write", path, err))
}

/// Reads the rows in their order. An error names file and line.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>, StageError> {
    let file = std::fs::File::open(path).map_err(|err| StageError::io("read", path, err))?;
    parse_predictions(&path.display().to_string(), file)
}

/// Reads the rows of `file`, which messages call `name`, in their order. An error names the line.
pub fn parse_predictions(name: &str, file: impl std::io::Read) -> Result<Vec<Prediction>, StageError> {
    let broken = |err: csv::Error| {
        let line = err.position().map_or(1, csv::Position::line);
        StageError::new(format!("line {line} of `{name}` is no prediction")).because(err)
    };
    let mut file = csv::Reader::from_reader(std::io::BufReader::new(file));
    if file.headers().map_err(broken)? != HEADER.as_slice() {
        return Err(StageError::new(format!("line 1 of `{name}` is not `{}`", HEADER.join(","))));
    }
    file.records()
        .map(|record| {
            let record = record.map_err(broken)?;
            let line = record.position().map_or(0, csv::Position::line);
            parse(&record).map_err(|(column, wanted)| {
                StageError::new(format!(
                    "line {line} of `{name}` has {} `{}`, wanted {wanted}",
                    HEADER[column], &record[column]
                ))
            })
        })
        .collect()
}

/// The prediction in `record`, or the column that is wrong and what it should be.
fn parse(record: &StringRecord) -> Result<Prediction, (usize, &'static str)> {
    let bit = |column: usize| match &record[column] {
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err((column, "0 or 1")),
    };
    Ok(Prediction {
        id: record[0].to_owned(),
        length: record[1].parse().map_err(|_| (1, "a count of tokens"))?,
        label: bit(2)?,
        score: record[3]
            .parse()
            .ok()
            .filter(|score| (0.0..=1.0).contains(score))
            .ok_or((3, "a probability from 0 to 1"))?,
        prediction: bit(4)?,
    })
}
