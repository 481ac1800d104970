//! The floors of `src/`: a file imports only from floors below, siblings not at all, and only
//! the command line and programs of their own (`src/bin`) print.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The modules of `src/` above the first floor, and the floor of each.
const FLOORS: [(&str, u8); 9] = [
    ("cli", 4),
    ("engine", 3),
    ("report", 3),
    ("export", 3),
    ("pipeline", 2),
    ("cache", 2),
    ("runs", 2),
    ("exec", 2),
    ("git", 2),
];

fn floor(module: &str) -> u8 {
    FLOORS.iter().find(|(name, _)| *name == module).map_or(1, |(_, floor)| *floor)
}

/// Every source file of a folder with its text, its unit tests and comments left out.
fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let rust = files.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "rs"));
    rust.map(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let path = entry.path().strip_prefix(folder).unwrap().to_path_buf();
        (path, lines.collect::<Vec<_>>().join("\n"))
    })
    .collect()
}

/// The top-level modules that a text names after `crate::`, in paths and in nested imports.
fn named_modules(code: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let rest = code[at + "crate::".len()..].trim_start();
        if !is_whole {
            continue;
        }
        let Some(list) = rest.strip_prefix('{') else {
            named.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (index, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    named.push(word(&list[index..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    named
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn module_of(path: &Path) -> String {
    path.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

#[test]
fn a_file_imports_only_from_floors_below() {
    let mut wrong = Vec::new();
    let sources = sources(&src());
    let modules: Vec<String> = sources.keys().map(|path| module_of(path)).collect();
    for (path, code) in &sources {
        let own = module_of(path);
        if ["lib", "main"].contains(&own.as_str()) {
            continue;
        }
        for named in named_modules(code) {
            let is_module = modules.contains(&named);
            let below = floor(&named) < floor(&own) || (floor(&own) == 1 && floor(&named) == 1);
            if is_module && named != own && !below {
                wrong.push(format!("{}: imports `{named}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the floors in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_floor() {
    let sources = sources(&src());
    for (module, _) in FLOORS {
        let exists = sources.keys().any(|path| module_of(path) == module);
        assert!(exists, "src/{module} is on a floor but does not exist");
    }
}

#[test]
fn only_the_command_line_prints() {
    let mut wrong = Vec::new();
    for (path, code) in sources(&src()) {
        let prints = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
        if !["cli", "bin"].contains(&module_of(&path).as_str())
            && prints.iter().any(|print| code.contains(print))
        {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "only src/cli and src/bin print: {}", wrong.join(", "));
}

#[test]
fn stages_do_not_know_the_scheduler() {
    let manifest = fs::read_to_string(src().join("../stages/Cargo.toml")).unwrap();
    assert!(
        !manifest.lines().any(|line| line.starts_with("pipe ") || line.starts_with("pipe.")),
        "{manifest}"
    );
}

#[test]
fn nested_imports_are_seen() {
    let code = "use crate::{\n    cache::{Cache, index::Index},\n    runs,\n};\nuse crate::exec::Job;\nmycrate::engine";
    assert_eq!(named_modules(code), ["cache", "runs", "exec"]);
}
