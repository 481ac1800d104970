//! How long stages took before.

use std::path::Path;

use rusqlite::OptionalExtension;

use super::{RunsDb, RunsError};
use crate::names::RunId;

impl RunsDb {
    /// Seconds of the latest execution that a stage called `stage` had in runs of `file` before `before`.
    pub fn latest_duration(&self, file: &Path, stage: &str, before: RunId) -> Result<Option<f64>, RunsError> {
        self.read(|conn| {
            // Records are in order of time within a file: see `share_records`.
            conn.prepare_cached(
                "SELECT execution.duration FROM stage_record AS record
                 JOIN execution ON execution.id = record.execution
                 JOIN run ON run.id = record.run
                 WHERE record.name = ? AND record.run < ? AND run.file = ? AND execution.duration IS NOT NULL
                 ORDER BY record.run DESC LIMIT 1",
            )?
            .query_row((stage, before.0, file.to_string_lossy()), |row| row.get(0))
            .optional()
        })
    }
}
