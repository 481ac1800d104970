//! Where results come from, and whether they come again: `pipe lineage`, `pipe reproduce`.

#[path = "../lab/mod.rs"]
mod lab;

mod lineage;
mod reproduce;

use std::process::Command;

use lab::Lab;

/// Two commands after each other, the second of which measures.
const WORDS: &str = r#"name: words
vars: { top: 2 }
stages:
  sort:
    kind: shell
    in: { text: { file: text.txt } }
    with: { command: 'sort {in.text} > {out.sorted}', outputs: [sorted] }
  count:
    kind: shell
    in: { words: sort, script: { file: count.sh } }
    with:
      command: 'sh {in.script} {in.words} {params.top} {out.first} {metrics}'
      params: { top: "${vars.top}" }
      outputs: [first]
      metrics: metrics.json
"#;

const SCRIPT: &str = "head -n $2 $1 > $3\necho \"{\\\"lines\\\": $(wc -l < $1)}\" > $4\n";

/// A project with the two commands and what they read.
fn words() -> Lab {
    let lab = Lab::new(WORDS);
    lab.write("text.txt", "pear\napple\nplum\n");
    lab.write("count.sh", SCRIPT);
    lab
}

/// The BLAKE3 of a text, as the record has it.
fn digest(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

#[track_caller]
fn git(lab: &Lab, arguments: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(lab.path(".")).args(["-c", "user.name=Lab", "-c", "user.email=lab@example.org"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
