//! The pages in `docs/reference/` are made from the code.

use std::{fmt::Write, process::Command};

use clap::CommandFactory;

use crate::page;

const HEAD: &str = "<!-- Made from the code; tests/docs keeps it current. -->\n\n";

#[test]
fn the_reference_of_the_kinds_is_what_pipe_stages_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_pipe")).args(["stages", "--md"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    page::is_current("reference/stages.md", &format!("{HEAD}{printed}"));
}

#[test]
fn the_reference_of_the_command_line_is_the_help_of_every_verb() {
    let mut command = pipe::cli::Cli::command().term_width(100);
    command.build();
    let mut text = format!(
        "{HEAD}# Command line\n\nWhat `pipe --help` and `pipe VERB --help` print. Exit codes: 0 done, 1 something \
         failed (a\nstage, the disk), 2 something you wrote cannot be used, 130 stopped by Ctrl-C (or SIGTERM or SIGHUP). \
         Results\ngo to standard output, what is said about them to standard error.\n"
    );
    write_help(&mut text, "pipe", &mut command);
    for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
    {
        let name = format!("pipe {}", verb.get_name());
        write_help(&mut text, &name, verb);
    }
    page::is_current("reference/cli.md", &text);
}

fn write_help(text: &mut String, name: &str, command: &mut clap::Command) {
    let help = command.render_long_help().to_string();
    let help: String = help.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}\n```\n", help.trim_end());
}
