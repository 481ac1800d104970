//! Files that were never meant well: each is refused within a second.

use std::{
    ffi::OsString,
    fmt::Write,
    os::unix::ffi::OsStringExt,
    process::Command,
    time::{Duration, Instant},
};

use crate::lab::Lab;

/// Generous, for machines that do other things too; the true times are below 0.1 s.
const QUICK: Duration = Duration::from_secs(5);

fn refused(bytes: impl AsRef<[u8]>) -> String {
    let lab = Lab::new(bytes);
    let start = Instant::now();
    let err = lab.refused(&[]);
    assert!(start.elapsed() < QUICK, "{:?}", start.elapsed());
    assert!(err.len() < 100_000, "{} bytes of talk", err.len());
    err
}

#[test]
fn a_file_without_content_is_called_empty() {
    insta::assert_snapshot!(refused(""), @r#"
    x the file is empty
     ,-[pipelines/a.yaml:1:1]
     `----
    help: a pipeline has `stages`; `pipe stages` lists what they can be
    "#);
    for empty in ["\n\n", "# nothing\n", "---\n", "~\n", "\u{feff}"] {
        assert!(refused(empty).contains("the file is empty"), "{empty:?}");
    }
}

#[test]
fn a_file_that_is_not_yaml_is_refused_at_the_place() {
    insta::assert_snapshot!(refused("name: a\nstages:\n  a: { kind: fetch\n  b: {}\n"), @r#"
     x not valid YAML: did not find expected ',' or '}', while parsing a flow mapping
      ,-[pipelines/a.yaml:4:4]
    3 |   a: { kind: fetch
      :      |
      :      `-- the map begins here
    4 |   b: {}
      :    |
      :    `-- noticed here
      `----
    "#);
    insta::assert_snapshot!(refused("name: é\nstages: [ \"é, 'a: b\nseed: 1\n"), @r#"
     x not valid YAML: a text in quotes does not end
      ,-[pipelines/a.yaml:2:11]
    2 | stages: [ "é, 'a: b
      :           |
      :           `-- it begins here
      `----
     help: close it with "
    "#);
    insta::assert_snapshot!(refused("stages:\n  a:\n    kind: fetch\n  \twith: {}\n"), @r"
     x not valid YAML: a tab stands where only spaces may
      ,-[pipelines/a.yaml:4:3]
    4 |     with: {}
      :   ^|
      :    `-- this tab
      `----
     help: indent with spaces
    ");
    for (text, words) in [
        ("a:\n  b: 1\n c: 2\n", "help: the keys of a map begin in the same column"),
        ("name: a: b\n", "help: a text with `: ` in it is written in quotes"),
        ("name: @a\n", "help: a text that begins with @ is written in quotes"),
        ("name: 'a", "a.yaml:1:7]"),
    ] {
        let err = refused(text);
        assert!(err.contains(words), "{err}");
    }
    insta::assert_snapshot!(refused(b"name: caf\xe9\n"), @r"
     x `pipelines/a.yaml` is not a text file in UTF-8
      ,-[pipelines/a.yaml:1:10]
    1 | name: caf�
      :          |
      :          `-- the first byte that is not UTF-8
      `----
    ");
    let err = refused([b"\x89PNG\r\n\x1a\n".as_slice(), &[0; 99]].concat());
    assert!(err.contains("not a text file in UTF-8") && err.contains("a.yaml:1:1]"), "{err}");
    assert!(!err.contains(['\0', '\x1a']), "{err:?}");
    let err = refused("stages:\u{feff}name:\n");
    assert!(err.contains("U+FEFF stands inside the file") && err.contains("a.yaml:1:8"), "{err}");
    assert!(refused("a: 1\n---\nb: 2\n").contains("more than one YAML document"));
    insta::assert_snapshot!(refused("name: \x1b[31m\n"), @r"
     x `pipelines/a.yaml` holds control characters, so it is not YAML
      ,-[pipelines/a.yaml:1:7]
    1 | name: ?[31m
      :       |
      :       `-- the first is U+001B
      `----
    ");
    assert!(refused("just words").contains("a pipeline must be a map"));
    assert!(refused("name: !include x\n").contains("tags such as `!name` mean nothing here"));
}

#[test]
fn a_megabyte_of_brackets_is_refused_at_once() {
    insta::assert_snapshot!(refused("[".repeat(1 << 20)), @r#"
     x lists and maps are nested more than 100 deep
      ,-[pipelines/a.yaml:1:256]
    1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
      :                                         |
      :                                         `-- this is too deep
      `----
    "#);
    for deep in ["{", "[{", "- ", "? ", "- - [", "a: [", "&a [", "!!x ", "\"", "]", "*a ", "a:\n "] {
        let err = refused(deep.repeat((1 << 20) / deep.len()));
        assert!(err.contains("a.yaml:"), "{deep}: {err}");
    }
    let indented: String = (0..1_400).flat_map(|depth| [" ".repeat(depth), "a:\n".to_owned()]).collect();
    assert!(refused(indented).contains("nested more than 100 deep"));
}

#[test]
fn brackets_in_a_text_are_only_text() {
    let ended =
        Lab::new(format!("name: '{}'\nstages: {{ r: {{ kind: sample_reviews }} }}", "[".repeat(100_000)))
            .check(&[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn a_reference_bomb_is_refused_and_plain_references_work() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(bomb, "a{i}: &a{i} [{inner}]").unwrap();
    }
    insta::assert_snapshot!(refused(bomb), @r#"
     x aliases make the document too large
      ,-[pipelines/a.yaml:2:10]
    2 | a1: &a1 [*a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0, *a0]
      :          ^^^
      `----
     help: every `*alias` stands for a copy of what its `&anchor` marks; use fewer inside each other
    "#);
    let wide = format!("vars:\n  a: &a [{}]\n  b: [{}]\n", "x,".repeat(200_000), "*a,".repeat(100_000));
    assert!(refused(wide).contains("aliases make the document too large"));
    let long = format!("vars:\n  a: &a {}\n  b: [{}]\n", "x".repeat(500_000), "*a,".repeat(100_000));
    assert!(refused(long).contains("aliases make the document too large"));
    assert!(refused("a: &a [*a]\n").contains("a.yaml:1:"));
    assert!(refused("a: &a { <<: [*a, *a] }\n").contains("a.yaml:1:"));

    let ended = Lab::new(
        "stages:
  r: { kind: sample_reviews }
  train: &tokens { kind: tokenize, in: { reviews: r.train }, with: &with { max_tokens: 32 } }
  test: { <<: *tokens, in: { reviews: r.test } }
  other: { kind: tokenize, in: { reviews: r.test }, with: *with }
",
    )
    .check(&[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

#[test]
fn of_very_many_problems_the_first_hundred_are_shown() {
    let mut file = String::from("stages:\n");
    for i in 0..10_000 {
        writeln!(file, "  s{i}: {{ kind: tokenize, in: {{ reviews: q{i} }} }}").unwrap();
    }
    let err = refused(&file);
    assert!(err.ends_with("pipelines/a.yaml: 10000 problems, of which the first 100 are shown\n"), "{err}");
    let one_line: Vec<String> = (0..10_000).map(|i| format!("s{i}: {{kind: tokenise}}")).collect();
    let err = refused(format!("stages: {{{}}}", one_line.join(", ")));
    assert!(err.contains("did you mean `tokenize`?"), "{err}");
}

#[test]
fn what_is_wrong_everywhere_is_told_as_quickly() {
    let mut file = String::from("stages:\n");
    for i in 0..10_000 {
        let inputs = format!("{{ a: '${{vars.no{i}}}', b: q{i} }}");
        let with = format!("{{ command: '${{vars.none{i}}}', foo: 1, bar: 2 }}");
        writeln!(file, "  s{i}: {{ kind: shell, timeout: x, retry: no, in: {inputs}, with: {with} }}")
            .unwrap();
    }
    let err = refused(&file);
    assert!(err.contains("70000 problems, of which the first 100 are shown"), "{err}");
}

#[test]
fn a_device_or_a_huge_file_is_not_read_whole() {
    let lab = Lab::new("");
    let ended = lab.pipe(&["check", "/dev/zero"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("larger than 16 MiB"), "{}", ended.err);
}

#[test]
fn line_ends_of_windows_and_letters_beyond_ascii_keep_their_columns() {
    let err =
        refused("\u{feff}name: \"é🎉\"\r\nstages:\r\n  r: { kind: sample_reviews, with: {}, é: 1 }\r\n");
    insta::assert_snapshot!(err, @r#"
     x a stage has no field `é`
      ,-[pipelines/a.yaml:3:40]
    3 |   r: { kind: sample_reviews, with: {}, é: 1 }
      :                                        ^
      `----
     help: fields are `kind`, `matrix`, `in`, `with`, `seed`, `resources`, `retry`, `timeout`
    "#);
}

#[test]
fn ten_thousand_stages_in_a_chain_are_checked_and_a_cycle_of_them_is_told_briefly() {
    let chain = |last: &str| {
        let mut file = String::from("stages:\n");
        for i in 0..10_000 {
            let from = if i + 1 < 10_000 { format!("s{}", i + 1) } else { last.to_owned() };
            writeln!(file, "  s{i}: {{ kind: reviews, in: {{ archive: {from} }} }}").unwrap();
        }
        file
    };
    let err = refused(chain("s0"));
    assert!(err.contains("the stages form a cycle: `s0` takes from `s1`"), "{err}");
    assert!(err.contains("and so on over 9991 more"), "{err}");
}

#[test]
fn an_alias_inside_of_what_it_stands_for_is_named() {
    let err = refused("stages: &s\n  a: *s\n");
    insta::assert_snapshot!(err, @r"
     x `*s` stands inside of what it is the alias of
      ,-[pipelines/a.yaml:2:6]
    2 |   a: *s
      :      ^|
      :       `-- this would go on without end
      `----
     help: write what is meant here, or mark a smaller part with the anchor
    ");
}

#[test]
fn what_is_merged_and_is_no_map_is_named_at_its_place() {
    let file = "base: &a { kind: gpt2 }\nstages:\n  a:\n    <<: [*a, 3]\n";
    insta::assert_snapshot!(refused(file), @r"
     x `<<` takes maps to copy from, and item 2 of its list is the number 3
      ,-[pipelines/a.yaml:4:14]
    4 |     <<: [*a, 3]
      :              ^
      `----
    ");
    assert!(refused("stages: { a: { <<: 3 } }").contains("`<<` takes a map to copy from, not the number 3"));
}

#[test]
fn names_that_are_not_text_are_refused_by_name() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'true' } } }");
    let name = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    std::fs::copy(lab.path().join("pipelines/a.yaml"), lab.path().join(name(b"pipelines/\xff.yaml")))
        .unwrap();
    std::fs::create_dir_all(lab.path().join(name(b"\xfe/pipelines"))).unwrap();
    let ended = |words: &[OsString]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        let output = command.args(words).current_dir(lab.path()).env_remove("PIPE_ROOT").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let file = name(b"pipelines/\xff.yaml");
    for more in [&["run"][..], &["check"], &["check", "--json"], &["run", "--progress", "json"]] {
        let words: Vec<OsString> = more.iter().map(OsString::from).chain([file.clone()]).collect();
        let (code, err) = ended(&words);
        assert_eq!(code, Some(2), "{err}");
        let is_told = err.contains("its name is not text in UTF-8") || more.contains(&"--json");
        assert!(is_told, "{err}");
    }
    let root = [name(b"--root"), name(b"\xfe"), name(b"run"), name(b"pipelines/a.yaml")];
    let (code, err) = ended(&root);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("as the project root: its name is not text in UTF-8"), "{err}");
    assert!(!lab.path().join("runs.db").exists());
}

#[test]
fn an_empty_variable_names_no_root() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'true' } } }");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
    let output = command.args(["check", "pipelines/a.yaml"]).current_dir(lab.path()).env("PIPE_ROOT", "");
    assert!(output.status().unwrap().success());
}
