//! The files that stages exchange.

use std::path::Path;

use pipe_stages::data::{
    Prediction, Review, Rows, Tokens, read_predictions, read_reviews, write_predictions, write_reviews,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn tokens() -> Tokens {
    let rows = Rows {
        ids: vec!["train/pos/3_10.txt".into(), "é".into(), "none".into()],
        lengths: vec![700, 1, 0],
        labels: vec![1, 0, 1],
        offsets: vec![0, 2, 3, 3],
    };
    Tokens { rows, tokens: vec![14832, 50256, 7] }
}

#[test]
fn tokens_read_back_as_they_were_written() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    tokens().write(&path).unwrap();
    let read = Tokens::read(&path).unwrap();
    assert_eq!(read, tokens());
    assert_eq!((read.row(0), read.row(2)), (&[14832, 50256][..], &[][..]));
    assert_eq!((read.rows.len(), read.rows.is_empty(), read.rows.positions()), (3, false, 3));

    let nothing = Tokens { rows: Rows { offsets: vec![0], ..Rows::default() }, tokens: vec![] };
    nothing.write(&path).unwrap();
    assert_eq!(Tokens::read(&path).unwrap(), nothing);
}

#[test]
fn a_cut_or_foreign_tokens_file_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tokens");
    tokens().write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for end in [0, 7, 40, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..end]).unwrap();
        let message = Tokens::read(&path).unwrap_err().to_string();
        assert!(message.contains("no safetensors file") && message.contains("tokens"), "{message}");
    }
    let at = bytes.windows(13).position(|name| name == b"pipe.tokens.1").unwrap();
    let foreign = [&bytes[..at], b"pipe.hidden.1", &bytes[at + 13..]].concat();
    std::fs::write(&path, foreign).unwrap();
    let message = Tokens::read(&path).unwrap_err().to_string();
    assert!(message.ends_with("is `pipe.hidden.1`, wanted `pipe.tokens.1`"), "{message}");
}

#[test]
fn reviews_read_back_and_errors_name_the_line() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("reviews");
    let real =
        Review { id: "a".into(), label: 1, rating: Some(9), text: "x\n<br>\u{85}".into(), synthetic: false };
    let made = Review { id: "b".into(), label: 0, rating: None, text: String::new(), synthetic: true };
    write_reviews(&path, [&real, &made]).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().nth(1), Some(r#"{"id":"b","label":0,"text":"","synthetic":true}"#));
    assert_eq!(read_reviews(&path).unwrap(), [real, made]);

    std::fs::write(&path, format!("{text}\n{{\"id\": 3}}\n")).unwrap();
    let message = read_reviews(&path).unwrap_err().to_string();
    assert!(message.starts_with("line 4 of `") && message.ends_with("reviews` is no review"), "{message}");
    std::fs::write(&path, r#"{"id":"a","label":2,"text":""}"#).unwrap();
    assert!(read_reviews(&path).unwrap_err().to_string().ends_with("has label 2, wanted 0 or 1"));
}

fn read_text(path: &Path, text: &str) -> Result<Vec<Prediction>, String> {
    std::fs::write(path, text).unwrap();
    read_predictions(path).map_err(|err| err.to_string())
}

#[test]
fn predictions_are_plain_csv_with_shortest_decimals() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("predictions");
    let row = |id: &str, score| Prediction { id: id.into(), length: 3, label: 1, score, prediction: 0 };
    write_predictions(&path, &[row("a,b", 0.1), row("c", 1.0), row("d", 1e-7)]).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "id,length,label,score,prediction\n\"a,b\",3,1,0.1,0\nc,3,1,1,0\nd,3,1,0.0000001,0\n"
    );
    let message = write_predictions(&path, &[row("a", f64::NAN)]).unwrap_err().to_string();
    assert_eq!(message, "the score of `a` is NaN, which is no probability");
}

#[test]
fn a_wrong_prediction_is_an_error_that_names_file_and_line() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("predictions");
    let header = "id,length,label,score,prediction\n";
    let message =
        |text: &str| read_text(&path, text).unwrap_err().replace(&path.display().to_string(), "FILE");
    assert_eq!(message("id,label\n"), "line 1 of `FILE` is not `id,length,label,score,prediction`");
    let body = format!("{header}a,1,1,0.5,1\n");
    assert_eq!(message(&format!("{body}b,1,2,0.5,1\n")), "line 3 of `FILE` has label `2`, wanted 0 or 1");
    assert_eq!(
        message(&format!("{body}b,1,1,inf,1\n")),
        "line 3 of `FILE` has score `inf`, wanted a probability from 0 to 1"
    );
    assert_eq!(
        message(&format!("{body}b,-1,1,0.5,1\n")),
        "line 3 of `FILE` has length `-1`, wanted a count of tokens"
    );
    assert_eq!(message(&format!("{body}b,1\n")), "line 3 of `FILE` is no prediction");
}

proptest! {
    #[test]
    fn any_score_reads_back_to_the_last_bit(scores in proptest::collection::vec(0.0..=1.0f64, 1..20)) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("predictions");
        let rows: Vec<_> = scores
            .iter()
            .enumerate()
            .map(|(i, score)| Prediction {
                id: format!("r\"{i}\n"), length: i as u32, label: 1, score: *score, prediction: 1,
            })
            .collect();
        write_predictions(&path, &rows).unwrap();
        prop_assert_eq!(read_predictions(&path).unwrap(), rows);
    }
}
