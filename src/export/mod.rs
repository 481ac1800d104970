//! Runs in the forms that other tools read: rows, TensorBoard's event files, MLflow's folders; and which
//! trained models a run has.
//!
//! Pure: takes what `runs.db` knows of a run and returns texts, bytes and the names of files;
//! the command line writes them. `docs/export.md` tells people what is where.

mod mlflow;
mod protobuf;
mod rows;
mod subject;
mod tensorboard;
mod tfrecord;
mod trained;

pub use mlflow::{File, experiment_id, experiment_meta, run_files, run_folder};
pub use rows::{COLUMNS, jsonl, rows};
pub use subject::{Measured, Subject};
pub use tensorboard::{event_file, events};
pub use trained::{Trained, trained};

/// A value of JSON as people write it: texts without quotes.
fn written(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
