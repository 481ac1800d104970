//! Options that every verb takes, and how verbs speak.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use clap::{
    Args, ValueEnum,
    builder::{OsStringValueParser, TypedValueParser},
};

use super::{Failure, targets::quoted};
use crate::root::project_root;

/// Options that every verb takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Globals {
    /// Project folder that paths are relative to, and that holds `cache/` and `runs.db`
    /// [default: the nearest folder at or above the pipeline file, up to its git work tree, that has
    /// `pipelines/` or `runs.db`, else the working directory]
    #[arg(long, global = true, value_name = "DIR", env = "PIPE_ROOT", hide_env_values = true,
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub root: Option<PathBuf>,
    /// When to use colours; `auto` heeds the terminal and `NO_COLOR`
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: When,
}

fn environment_root() -> Option<PathBuf> {
    std::env::var_os("PIPE_ROOT").map(PathBuf::from).filter(|root| !root.as_os_str().is_empty())
}

fn root_option(root: &Path) -> String {
    format!("--root {}", quoted(&root.display().to_string()))
}

/// `--root DIR` as words of a shell, where a verb that is given this pipeline file or none would not find
/// the project `root` by itself.
pub(super) fn root_words_for(root: &Path, file: Option<&Path>) -> Option<String> {
    let is_found = project_root(environment_root().as_deref(), file).is_ok_and(|found| found == root);
    (!is_found).then(|| root_option(root))
}

/// Puts `root`, as words of a shell, behind the verb of each command in backticks.
fn rooted(text: &str, root: &str) -> String {
    const OF_NO_PROJECT: [&str; 4] = ["stages", "schema", "completions", "help"];
    let command = |(at, part): (usize, &str)| {
        let verb = part.strip_prefix("pipe ").filter(|_| at % 2 == 1)?.split(' ').next()?;
        let is_meant = !OF_NO_PROJECT.contains(&verb) && !part.contains(" --root ");
        let (head, rest) = part.split_at("pipe ".len() + verb.len());
        is_meant.then(|| format!("{head} {root}{rest}"))
    };
    let parts = text.split('`').enumerate();
    parts.map(|it| command(it).unwrap_or_else(|| it.1.to_owned())).collect::<Vec<_>>().join("`")
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Globals {
    /// The root that the person named, by option or environment; an empty one counts as none.
    pub fn named_root(&self) -> Option<&Path> {
        self.root.as_deref().filter(|root| !root.as_os_str().is_empty())
    }

    /// The project root: as named, else found from `file`, else from the working directory.
    pub fn project_root(&self, file: Option<&Path>) -> Result<PathBuf, Failure> {
        project_root(self.named_root(), file).map_err(|err| {
            let root = self.named_root().unwrap_or(Path::new("."));
            Failure::input(format!("cannot use `{}` as the project root: {err}", root.display()))
        })
    }

    /// `--root DIR` as it was given, as words of a shell; none where `PIPE_ROOT` says it.
    pub(super) fn root_words(&self) -> Option<String> {
        let root = self.root.as_ref().filter(|root| environment_root().as_ref() != Some(root))?;
        Some(root_option(root))
    }

    /// `text` with `--root`, as it was given, in each of its commands in backticks that is about a project.
    pub(super) fn rooted(&self, text: &str) -> String {
        match self.root_words() {
            Some(root) => rooted(text, &root),
            None => text.to_owned(),
        }
    }

    /// Whether what goes to standard output is coloured.
    pub fn colors_output(&self) -> bool {
        self.colors(io::stdout().is_terminal())
    }

    /// Whether what goes to standard error is coloured.
    pub fn colors_talk(&self) -> bool {
        self.colors(io::stderr().is_terminal())
    }

    /// Makes what is printed as the run goes on heed the same rule: by itself, `anstream` colours a
    /// terminal that can do nothing where `CI` is set.
    pub(super) fn set_colors(&self) {
        let choice =
            if self.colors_talk() { anstream::ColorChoice::Always } else { anstream::ColorChoice::Never };
        choice.write_global();
    }

    fn colors(&self, terminal: bool) -> bool {
        match self.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }

    /// Writes what was asked for to standard output, without adding a line break.
    ///
    /// # Errors
    ///
    /// [`Failure::Quiet`] if the reader has gone.
    pub fn print(&self, text: impl Display) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        write!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|err| unprinted(&err))
    }

    /// Copies what was asked for to standard output, byte by byte.
    ///
    /// # Errors
    ///
    /// Those of [`Self::print`], and that `from` cannot be read.
    pub fn print_bytes(&self, mut from: impl io::Read) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        io::copy(&mut from, &mut stdout).and_then(|_| stdout.flush()).map_err(|err| unprinted(&err))
    }

    /// Writes a line of talk to standard error; a reader that has gone is no problem.
    pub fn say(&self, text: impl Display) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

fn unprinted(err: &io::Error) -> Failure {
    match err.kind() {
        io::ErrorKind::BrokenPipe => Failure::Quiet,
        _ => Failure::input(format!("cannot write to standard output: {err}")).exit(1),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_that_are_about_a_project_are_told_its_root() {
        let rooted = |text: &str| super::rooted(text, "--root p");
        assert_eq!(
            rooted("`pipe show 1` or `a`, not `pipe stages`"),
            "`pipe show --root p 1` or `a`, not `pipe stages`"
        );
        assert_eq!(rooted("pipe `runs`; `pipe runs`"), "pipe `runs`; `pipe runs --root p`");
        assert_eq!(rooted("`pipe gc --root q` an `open one"), "`pipe gc --root q` an `open one");
    }
}
