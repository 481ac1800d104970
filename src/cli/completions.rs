//! `pipe completions`: what a shell needs to complete commands.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, Globals};

/// Print the completions for a shell
///
/// Examples:
///   pipe completions bash > ~/.local/share/bash-completion/completions/pipe
///   pipe completions zsh  > ~/.zfunc/_pipe
///   pipe completions fish > ~/.config/fish/completions/pipe.fish
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pipe", &mut script);
        globals.print(String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
