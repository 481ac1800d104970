//! Outputs of runs, taken out of the cache.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use super::Lab;

const PIPELINE: &str = r#"name: words
stages:
  sort:
    kind: shell
    in: { text: { file: text.txt } }
    with:
      command: 'sort {in.text} | tee {out.first} > {out.all}; printf "lines\n3\n" > {metrics}'
      outputs: [all, first]
      metrics: lines.csv
  program:
    kind: shell
    with: { command: 'printf "\0\1" > {out.bytes}; chmod 755 {out.bytes}', outputs: [bytes] }
  test: { kind: shell, in: { all: sort.all }, with: { command: 'test -s {in.all}' } }
"#;

const SORTED: &str = "apple\npear\nplum\n";

/// A project with one run: a stage of two outputs and a metric, one whose output is executable and no text,
/// and one without outputs.
fn words() -> Lab {
    let lab = Lab::new(PIPELINE);
    lab.write("text.txt", "pear\napple\nplum\n");
    // Stages are listed as they ended.
    lab.run(&["-j", "1"]).success();
    lab
}

#[test]
fn what_a_run_has_is_listed_with_what_is_no_longer_in_the_cache() {
    let lab = words();
    let listed = lab.pipe(&["get", "@last", "--json"]).success().stdout;
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let path = listed[2]["path"].as_str().unwrap();
    assert_eq!(fs::read(path).unwrap(), [0, 1]);
    fs::remove_file(path).unwrap();
    insta::assert_snapshot!(lab.pipe(&["get", "@last"]).success().stdout, @"
    OUTPUT         TYPE      SIZE  HASH
    sort.all       anything  16 B  d9f2e59ecd91
    sort.first     anything  16 B  d9f2e59ecd91
    program.bytes  anything   2 B  7b7015bb92cf  not in the cache
    ");
    let said = lab.pipe(&["get", "@last", "program.bytes"]).ends_with_code(2);
    insta::assert_snapshot!(said.stderr, @"
    x `program.bytes` in run_1: missing in the cache
    help: `pipe reproduce run_1` computes it again
    ");
}

#[test]
fn one_output_goes_to_standard_output_byte_by_byte() {
    let lab = words();
    let output = lab.command(&["get", "1", "program"]).output().unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&[0, 1][..], &[][..]));
    assert_eq!(lab.pipe(&["get", "run_1", "sort.all"]).success().stdout, SORTED);
    // By the beginning of its hash.
    let hash = blake3::hash(SORTED.as_bytes()).to_hex();
    assert_eq!(lab.pipe(&["get", "@last", &hash[..8]]).success().stdout, SORTED);
}

#[test]
fn a_copy_takes_the_place_of_a_file_and_may_be_changed_and_run() {
    let lab = words();
    fs::create_dir(lab.path("got")).unwrap();
    lab.write("got/words", "what was there before");
    let said = lab.pipe(&["get", "@last", "sort.first", "--out", "got/words"]).success();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "wrote got/words (16 B)\n"));
    assert_eq!(fs::read_to_string(lab.path("got/words")).unwrap(), SORTED);
    lab.write("got/words", "changed");
    assert_eq!(lab.run(&[]).stages("cached").len(), 3, "the cache has its own");
    lab.pipe(&["get", "@last", "program", "-o", "new/folder/program"]).success();
    let mode = fs::metadata(lab.path("new/folder/program")).unwrap().permissions().mode();
    assert_eq!(mode & 0o700, 0o700);
    // No copy that is not whole stays behind.
    assert_eq!(lab.files("got").len() + lab.files("new").len(), 2);
}

#[test]
fn any_number_go_into_a_folder() {
    let lab = words();
    let said = lab.pipe(&["get", "@last", "sort", "sort.all", "--into", "some"]).success();
    assert_eq!(said.stderr, "wrote some/sort/all (16 B)\nwrote some/sort/first (16 B)\n");
    lab.pipe(&["get", "@last", "--into", "all"]).success();
    assert_eq!(lab.files("some").len(), 2);
    assert_eq!(lab.files("all").len(), 3);
    assert_eq!(fs::read(lab.path("all/program/bytes")).unwrap(), [0, 1]);
}

#[test]
fn paths_are_for_other_programs() {
    let lab = words();
    let paths = lab.pipe(&["get", "@last", "sort", "--path"]).success().stdout;
    let paths: Vec<_> = paths.lines().collect();
    assert_eq!(paths.len(), 2);
    assert_eq!(fs::read_to_string(paths[1]).unwrap(), SORTED);
}

#[test]
fn what_cannot_be_got_is_told_with_what_can() {
    let lab = words();
    let told =
        |arguments: &[&str]| lab.pipe(&[&["get", "@last"], arguments].concat()).ends_with_code(2).stderr;
    insta::assert_snapshot!(told(&["sort.lines"]), @"
    x `sort.lines` is a metric of run_1, not an output
    help: `pipe show run_1` has its value
    ");
    insta::assert_snapshot!(told(&["sort.al"]), @"
    x run_1 has no metric, output or stage `sort.al`
    help: did you mean `sort.all`?
    ");
    insta::assert_snapshot!(told(&["sort"]), @"
    x 2 outputs are meant: sort.all, sort.first
    help: name one, or write all into a folder: `--into DIR`
    ");
    insta::assert_snapshot!(told(&["test"]), @"x stage `test` has no outputs");
    insta::assert_snapshot!(told(&["sort.all", "--out", "."]), @"
    x cannot write `.`: Is a directory (os error 21)
    help: write into a folder with `--into DIR`
    ");
}
