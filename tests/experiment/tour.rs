//! The tour of the README: its commands are run, and they print what it says.

use std::{fs, path::Path, process::Command};

use crate::demo::shipped;

/// A command of the tour, and the lines that the README shows below it.
struct Shown {
    command: String,
    lines: Vec<String>,
}

/// Every `$ command` in the blocks marked `console`.
fn tour(readme: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    let mut is_console = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(mark) => is_console = mark == "console",
            None if !is_console => {}
            None => match line.strip_prefix("$ ") {
                Some(command) => shown.push(Shown { command: command.to_owned(), lines: Vec::new() }),
                None => shown.last_mut().expect("a command comes first").lines.push(line.to_owned()),
            },
        }
    }
    shown
}

/// Whether `printed` is what `shown` says, where `…` stands for anything and runs of spaces are one.
fn is_shown(shown: &str, printed: &str) -> bool {
    let one_space = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, printed) = (one_space(shown), one_space(printed));
    let mut rest = printed.as_str();
    let mut parts = shown.split('…').peekable();
    let mut is_first = true;
    while let Some(part) = parts.next() {
        let part = part.trim();
        let at = if is_first { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
        is_first = false;
        if parts.peek().is_none() {
            return rest.is_empty() || part.is_empty();
        }
    }
    true
}

#[test]
fn the_commands_of_the_tour_print_what_the_readme_says() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let lab = shipped();
    let binaries = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().to_owned();
    let path = std::env::join_paths(
        [binaries].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let tour = tour(&readme);
    assert!(tour.len() >= 8, "the README has a tour");
    for Shown { command, lines } in tour {
        let output = Command::new("sh")
            .args(["-c", &format!("({command}) 2>&1")])
            .current_dir(lab.path("."))
            .env("PATH", path.as_ref().unwrap())
            .env_remove("PIPE_ROOT")
            .env("PIPE_CUDA_WORKER", "/no/worker")
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "`{command}` failed:\n{printed}");
        let mut left = printed.lines();
        for line in lines.iter().filter(|line| !line.trim().is_empty() && line.trim() != "…") {
            assert!(
                left.any(|printed| is_shown(line, printed)),
                "`{command}` does not print, or not in this order:\n{line}\nbut:\n{printed}"
            );
        }
    }
}
