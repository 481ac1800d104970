//! Why a verb could not do what it was asked, and how that is told.

use std::{error::Error, fmt, path::Path, process::ExitCode};

use miette::Diagnostic;

use super::{Globals, report};
use crate::{pipeline::PipelineErrors, runs::RunsError};

/// Why a verb could not do what it was asked.
///
/// `?` turns any [`Diagnostic`] and [`PipelineErrors`] into one; other errors go through
/// [`Failure::error`].
#[derive(Debug)]
pub enum Failure {
    /// Whoever read the output has gone: end without a word.
    Quiet,
    /// Something to tell before ending.
    Told {
        /// What happened.
        diagnostics: Vec<Box<dyn Diagnostic + Send + Sync>>,
        /// A last line, such as a count.
        summary: Option<String>,
        /// The exit code: 1 for what failed, be it a stage or a disk, 2 for input that cannot be used.
        exit: u8,
    },
}

impl Failure {
    /// Input that cannot be used: lowercase, no full stop.
    pub fn input(message: impl Into<String>) -> Self {
        Self::from(Plain { message: message.into(), help: None, source: None })
    }

    /// Something that failed, told with its causes.
    pub fn error(err: impl Error + Send + Sync + 'static) -> Self {
        let message = err.to_string();
        let source = Some(Chain(Box::new(err)));
        Self::from(Plain { message, help: None, source }).exit(1)
    }

    /// Adds what the person can do about it, if nothing is said yet.
    #[must_use]
    pub fn help(self, text: impl Into<String>) -> Self {
        match self {
            Failure::Told { mut diagnostics, summary, exit } if diagnostics.len() == 1 => {
                let about = diagnostics.remove(0);
                let helped = Helped { about, help: text.into() };
                Failure::Told { diagnostics: vec![Box::new(helped)], summary, exit }
            }
            other => other,
        }
    }

    /// Ends with this exit code.
    #[must_use]
    pub fn exit(mut self, code: u8) -> Self {
        if let Failure::Told { exit, .. } = &mut self {
            *exit = code;
        }
        self
    }

    /// The end of a verb whose work came to `code` and was `printed`: a reader that has gone makes no success of
    /// what failed.
    pub fn after(code: u8, printed: Result<(), Self>) -> Result<ExitCode, Self> {
        match printed {
            Err(told @ Failure::Told { .. }) => Err(if code == 0 { told } else { told.exit(code) }),
            Ok(()) | Err(Failure::Quiet) => Ok(ExitCode::from(code)),
        }
    }

    /// The database of runs, if it is damaged and that is why.
    pub(super) fn damaged_database(&self) -> Option<&Path> {
        let Failure::Told { diagnostics, .. } = self else { return None };
        diagnostics.iter().find_map(|one| {
            let error: &(dyn Error + 'static) = one.as_ref();
            error.downcast_ref::<RunsError>()?.damaged()
        })
    }

    /// Tells what happened and returns the exit code.
    pub(super) fn report(self, globals: &Globals) -> ExitCode {
        match self {
            Failure::Quiet => ExitCode::SUCCESS,
            told @ Failure::Told { exit, .. } => {
                globals.say(told.words(globals));
                ExitCode::from(exit)
            }
        }
    }

    /// What happened as it is drawn on standard error, without a last line break.
    pub(super) fn words(&self, globals: &Globals) -> String {
        let Failure::Told { diagnostics, summary, .. } = self else { return String::new() };
        let drawing = report::Drawing::for_talk(globals);
        let drawn: Vec<String> =
            diagnostics.iter().map(|one| drawing.draw(&Rooted(one.as_ref(), globals))).collect();
        let summary = summary.as_ref().map(|summary| format!("\n\n{summary}"));
        format!("{}{}", drawn.join("\n").trim_end(), summary.unwrap_or_default())
    }
}

impl<E: Diagnostic + Send + Sync + 'static> From<E> for Failure {
    fn from(err: E) -> Self {
        let known: &(dyn Error + 'static) = &err;
        let has_failed = known.downcast_ref::<RunsError>().is_some_and(RunsError::is_failure);
        Failure::Told {
            diagnostics: vec![Box::new(err)],
            summary: None,
            exit: if has_failed { 1 } else { 2 },
        }
    }
}

impl From<PipelineErrors> for Failure {
    fn from(errors: PipelineErrors) -> Self {
        let summary = (errors.total > 1).then(|| errors.to_string());
        let boxed = |problem| Box::new(problem) as Box<dyn Diagnostic + Send + Sync>;
        Failure::Told { diagnostics: errors.problems.into_iter().map(boxed).collect(), summary, exit: 2 }
    }
}

/// A message without a place in a file.
#[derive(Debug)]
struct Plain {
    message: String,
    help: Option<String>,
    source: Option<Chain>,
}

/// An error whose own words are told already, so that only its causes follow.
#[derive(Debug)]
struct Chain(Box<dyn Error + Send + Sync>);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Plain {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().and_then(|chain| chain.0.source())
    }
}

impl Diagnostic for Plain {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}

/// A diagnostic with a help text of ours.
#[derive(Debug)]
struct Helped {
    about: Box<dyn Diagnostic + Send + Sync>,
    help: String,
}

impl fmt::Display for Helped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.about.fmt(f)
    }
}

impl Error for Helped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.about.source()
    }
}

impl Diagnostic for Helped {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(self.about.help().unwrap_or_else(|| Box::new(&self.help)))
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.about.source_code()
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.about.labels()
    }
}

/// A diagnostic whose help names commands as they are to be typed.
#[derive(Debug)]
struct Rooted<'a>(&'a (dyn Diagnostic + Send + Sync), &'a Globals);

impl fmt::Display for Rooted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

impl Error for Rooted<'_> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Diagnostic for Rooted<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help().map(|help| Box::new(self.1.rooted(&help.to_string())) as Box<dyn fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.0.source_code()
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.0.labels()
    }
}
