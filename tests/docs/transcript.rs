//! A page whose commands can be run: what they print stands below them.

use std::{fmt::Write, fs, path::Path, process::Command};

use crate::{compared::tells_the_same, lab::Lab, page};

/// A page, cut where something is to be done.
enum Part {
    /// Prose, and the fences around everything else.
    Text(String),
    /// A file that the reader writes: the block of code after a fence such as ```` ```yaml pipelines/x.yaml ````; after
    /// ```` ```yaml >> pipelines/x.yaml ```` what is added to it.
    File { name: String, content: String },
    /// A `$ command` of a `console` block, and what it prints.
    Command { line: String, printed: String },
}

fn parts(page: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut fence: Option<String> = None;
    for line in page.lines() {
        let mark = line.strip_prefix("```");
        if let Some(mark) = mark {
            parts.push(Part::Text(format!("{line}\n")));
            fence = if fence.is_some() { None } else { Some(mark.to_owned()) };
            if let Some((_, name)) = fence.as_deref().and_then(|mark| mark.split_once(' ')) {
                parts.push(Part::File { name: name.to_owned(), content: String::new() });
            }
            continue;
        }
        let command = line.strip_prefix("$ ").filter(|_| fence.as_deref() == Some("console"));
        match (command, parts.last_mut()) {
            (Some(command), _) => {
                parts.push(Part::Command { line: command.to_owned(), printed: String::new() });
            }
            (None, Some(Part::File { content: text, .. } | Part::Command { printed: text, .. })) => {
                let _ = writeln!(text, "{line}");
            }
            (None, _) => parts.push(Part::Text(format!("{line}\n"))),
        }
    }
    parts
}

/// Does all that the page `name` says in `lab`, in order, and compares what is printed.
pub fn is_true(name: &str, lab: &Lab) {
    let mut written = String::new();
    let mut wrong = String::new();
    let mut commands = 0;
    for part in parts(&page::read(name)) {
        match part {
            Part::Text(text) => written.push_str(&text),
            Part::File { name, content } => {
                let path = lab.path(name.strip_prefix(">> ").unwrap_or(&name));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let before =
                    if name.starts_with(">> ") { fs::read_to_string(&path).unwrap() } else { String::new() };
                fs::write(path, before + &content).unwrap();
                written.push_str(&content);
            }
            Part::Command { line, printed } => {
                commands += 1;
                let now = run(&line, lab);
                if !tells_the_same(&printed, &now, line.starts_with("pipe run")) {
                    let _ = write!(wrong, "\n$ {line}\n--- shown\n{printed}--- printed\n{now}");
                }
                let _ = write!(written, "$ {line}\n{now}");
            }
        }
    }
    assert!(commands > 0, "docs/{name} shows no command");
    if page::is_writing() {
        page::write(name, &written);
    } else {
        assert!(
            wrong.is_empty(),
            "docs/{name} shows what is no longer printed: run\n  {}\n{wrong}",
            page::WRITE
        );
    }
}

/// What `line` prints when a person types it in the folder of `lab`, the name of the machine left out.
fn run(line: &str, lab: &Lab) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().to_owned();
    let paths = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([binaries].into_iter().chain(std::env::split_paths(&paths))).unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("({line}) 2>&1")])
        .current_dir(lab.path("."))
        .env("PATH", path)
        .env_remove("PIPE_ROOT")
        .env("PIPE_CUDA_WORKER", "/no/worker")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "`{line}` failed:\n{printed}");
    let printed: String = printed.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let host = regex::Regex::new(r"(pipe [\d.]+ on) [^\s,]+").unwrap();
    host.replace_all(&printed, "$1 workstation").into_owned()
}
