//! From the words in the database to outcomes and states.

use crate::record::{Outcome, RunStatus};

pub(super) fn outcome_from(word: &str) -> Option<Outcome> {
    use Outcome::{Cached, Failed, Interrupted, Ran, Skipped};
    [Ran, Cached, Failed, Skipped, Interrupted].into_iter().find(|outcome| outcome.word() == word)
}

pub(super) fn status_from(word: &str) -> Option<RunStatus> {
    use RunStatus::{Done, Failed, Interrupted, Running};
    [Running, Done, Failed, Interrupted].into_iter().find(|status| status.word() == word)
}
