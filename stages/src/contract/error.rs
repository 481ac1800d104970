//! Why a stage failed, in words for the person who runs it.

use std::{error::Error, path::Path};

use thiserror::Error;

/// A stage that could not do its work: what happened, the cause, and what to do.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct StageError {
    message: String,
    help: Option<String>,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StageError {
    /// An error that says `message`: lowercase, no full stop, names in backticks.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, source: None }
    }

    /// A file operation on `path` that failed; `what` is like "read" or "create".
    pub fn io(what: &str, path: &Path, source: std::io::Error) -> Self {
        Self::new(format!("cannot {what} `{}`", path.display())).because(source)
    }

    /// Adds what the person can do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the person can do about it, if known.
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The chain of causes, nearest first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}
