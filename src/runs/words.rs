//! The words that stand for outcomes and states in the database.

use crate::record::{Outcome, RunStatus};

pub(super) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ran => "ran",
        Outcome::Cached => "cached",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::Interrupted => "interrupted",
    }
}

pub(super) fn outcome_from(word: &str) -> Option<Outcome> {
    use Outcome::{Cached, Failed, Interrupted, Ran, Skipped};
    [Ran, Cached, Failed, Skipped, Interrupted].into_iter().find(|outcome| outcome_word(*outcome) == word)
}

pub(super) fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Done => "done",
        RunStatus::Failed => "failed",
        RunStatus::Interrupted => "interrupted",
    }
}

pub(super) fn status_from(word: &str) -> Option<RunStatus> {
    use RunStatus::{Done, Failed, Interrupted, Running};
    [Running, Done, Failed, Interrupted].into_iter().find(|status| status_word(*status) == word)
}
