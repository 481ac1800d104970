//! `pipe schema`: the JSON Schema of pipeline files.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Failure, Globals, out::write};
use crate::pipeline::schema;

/// Print the JSON Schema of pipeline files, for editors
///
/// An editor with a YAML language server completes and checks a pipeline file that begins with
/// `# yaml-language-server: $schema=PATH-OF-THE-SCHEMA`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe schema --out pipelines/schema.json
  pipe schema | jq '.properties | keys'")]
pub(super) struct Schema {
    /// Write to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Schema {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let text = format!("{:#}\n", schema(pipe_stages::kinds()));
        match self.out {
            None => globals.print(text)?,
            Some(path) => write(&path, text)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
