//! What stages before it wrote is there for a stage to read, and not to write.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use crate::lab::Lab;

const CHANGES: &str = "stages:
  data: { kind: shell, with: { command: 'echo good > {out.o}', outputs: [o] } }
  fix:  { kind: shell, in: { x: data }, with: { command: 'COMMAND', outputs: [o] } }
";
const CHANGED: &str = "input `x` (`data.o`) was changed in the cache while the stage ran";

fn contents(lab: &Lab) -> Vec<String> {
    let files = lab.files("cache/v1/objects").into_iter();
    files.map(|file| String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()).collect()
}

#[test]
fn a_stage_that_changes_its_input_fails_however_it_does_it() {
    for change in [
        "sed -i s/good/evil/ {in.x}; cp {in.x} {out.o}",
        "cp {in.x} {in.x}.new; mv -f {in.x}.new {in.x}; cp {in.x} {out.o}",
        "chmod u+w {in.x}; echo more >> {in.x}; cp {in.x} {out.o}",
        "chmod u+w {in.x}; printf evil | dd of={in.x} conv=notrunc; cp {in.x} {out.o}",
        "ln {in.x} {out.o}; chmod u+w {out.o}; printf evil | dd of={out.o} conv=notrunc",
        "gzip -f {in.x}; touch {out.o}",
        "mv {in.x} {out.o}",
        "rm -f {in.x}; mkdir {in.x}; touch {out.o}",
        "rm -f {in.x}; exit 3 # {out.o}",
    ] {
        let lab = Lab::new(&CHANGES.replace("COMMAND", change));
        let failed = lab.run(&[]).ends_with_code(1);
        for part in [CHANGED, "its result was not kept", "`sandbox: true` of kind `shell` prevents it"] {
            assert!(failed.stderr.contains(part), "`{part}` is not in what {change} gave\n{}", failed.stderr);
        }
        assert!(contents(&lab).iter().all(|text| !text.contains("evil")), "{change}");
        assert_eq!(lab.files("cache/v1/results").len(), 1, "{change}");
        lab.edit(change, "cp {in.x} {out.o}");
        lab.run(&[]).success();
        lab.pipe(&["verify", "--cache"]).success();
        assert!(contents(&lab).contains(&"good\n".to_owned()), "{change}");
    }
}

#[test]
fn it_is_not_tried_again_and_leaves_no_checkpoint_made_of_other_bytes() {
    let lab = Lab::new(
        "stages:
  data: { kind: shell, with: { command: 'echo good > {out.o}', outputs: [o] } }
  fix:
    kind: shell
    in: { x: data }
    retry: 2
    with: { command: 'sed -i s/good/evil/ {in.x}; cp {in.x} {checkpoint}/half; exit 1 # {out.o}', outputs: [o] }
",
    );
    let failed = lab.run(&[]).ends_with_code(1);
    assert!(failed.stderr.contains(CHANGED) && failed.stderr.contains("exit code 1"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("retrying"), "{}", failed.stderr);
    assert!(lab.files("cache/v1/scratch").is_empty());
}

#[test]
fn a_stage_that_reads_what_one_beside_it_changes_fails_as_well() {
    let lab = Lab::new(
        "stages:
  data: { kind: shell, with: { command: 'echo good > {out.o}', outputs: [o] } }
  reads:
    kind: shell
    in: { x: data }
    with:
      command: 'touch begun; until test -e changed; do sleep 0.01; done; cat {in.x} > {out.o}; true'
      outputs: [o]
  fix:
    kind: shell
    in: { x: data }
    with:
      command: 'until test -e begun; do sleep 0.01; done; sed -i s/good/evil/ {in.x}; touch changed {out.o}'
      outputs: [o]
",
    );
    let failed = lab.run(&["-j", "2"]).ends_with_code(1);
    assert_eq!(failed.stages("failed"), ["fix", "reads"], "{}", failed.stderr);
    assert_eq!(failed.stderr.matches(CHANGED).count(), 2, "{}", failed.stderr);
    assert_eq!(lab.files("cache/v1/results").len(), 1);
}

#[test]
fn what_was_changed_is_lost_to_the_stages_after_it() {
    let lab = Lab::new(
        "stages:
  data:  { kind: shell, with: { command: 'echo good > {out.o}', outputs: [o] } }
  fix:   { kind: shell, in: { x: data }, with: { command: 'sed -i s/good/evil/ {in.x}; touch {out.o}', outputs: [o] } }
  reads: { kind: shell, in: { x: data }, with: { command: 'cp {in.x} {out.o}', outputs: [o] } }
",
    );
    let failed = lab.run(&["-j", "1", "-k"]).ends_with_code(1);
    assert_eq!(failed.stages("failed"), ["fix", "reads"], "{}", failed.stderr);
    let lost = "input `x` (`data.o`) is missing in the cache by now: run again, which computes it again";
    assert!(failed.stderr.contains(lost), "{}", failed.stderr);
    let again = lab.run(&["-j", "1", "--until", "reads"]).success();
    assert_eq!(again.stages("done"), ["data", "reads"], "{}", again.stderr);
}

#[test]
fn attributes_and_links_of_an_input_may_change() {
    let command = "chmod u+w {in.x}; ln {in.x} {out.o}";
    let lab = Lab::new(&CHANGES.replace("COMMAND", command));
    lab.run(&[]).success();
    lab.pipe(&["verify", "--cache"]).success();
    assert_eq!(lab.run(&[]).success().stages("cached"), ["data", "fix"]);
}

#[test]
fn an_output_that_the_checkpoints_hold_too_is_not_copied() {
    let lab = Lab::new(
        "stages:
  long:
    kind: shell
    with:
      command: 'echo states > {checkpoint}/o; ln {checkpoint}/o {out.o}; stat -c %i {out.o} > {out.inode}'
      outputs: [o, inode]
",
    );
    lab.run(&[]).success();
    let kept = lab.files("cache/v1/objects").into_iter();
    let (states, inode): (Vec<_>, Vec<_>) = kept.partition(|file| fs::read(file).unwrap() == b"states\n");
    let found = fs::metadata(&states[0]).unwrap();
    assert_eq!(format!("{}\n", found.ino()), fs::read_to_string(&inode[0]).unwrap());
    assert_eq!(found.nlink(), 1, "the other name went with the checkpoints");
}

#[test]
fn a_command_that_removes_its_checkpoints_itself_is_done_all_the_same() {
    let command = "echo 1 > {out.o}; rm -r {checkpoint}";
    let lab = Lab::new(&format!(
        "stages: {{ a: {{ kind: shell, with: {{ command: '{command}', outputs: [o] }} }} }}\n"
    ));
    lab.run(&[]).success();
    assert_eq!(lab.files("cache/v1/scratch"), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(lab.run(&[]).success().stages("cached"), ["a"]);
}

#[test]
fn an_output_that_is_a_link_is_copied_so_that_nobody_else_has_the_file() {
    let lab = Lab::new(
        "stages:
  pack:
    kind: shell
    with: { command: 'ln model.bin {out.hard}; ln -s $PWD/notes.txt {out.soft}', outputs: [hard, soft] }
",
    );
    lab.write("model.bin", "weights");
    lab.write("notes.txt", "notes");
    lab.run(&[]).success();
    fs::write(lab.path("model.bin"), "WEIGHTS").expect("it can be written as before");
    lab.write("notes.txt", "NOTES");
    lab.pipe(&["verify", "--cache"]).success();
    let mut kept = contents(&lab);
    kept.sort();
    assert_eq!(kept, ["notes", "weights"]);
    assert_eq!(lab.run(&[]).success().stages("cached"), ["pack"]);
}

const PYTHON: &str = "stages:
  a:
    kind: shell
    in: { src: { dir: src } }
    with: { command: 'python3 {in.src}/main.py > {out.o}', outputs: [o] }
";

#[test]
fn python_takes_modules_from_an_input_without_changing_it() {
    let lab = Lab::new(PYTHON);
    fs::create_dir(lab.path("src")).unwrap();
    lab.write("src/main.py", "import words\nprint(words.WORD)\n");
    for word in ["one", "two"] {
        lab.write("src/words.py", format!("WORD = '{word}'\n"));
        let run =
            lab.command(&["run", "pipelines/p.yaml"]).env_remove("PYTHONDONTWRITEBYTECODE").output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert!(contents(&lab).contains(&format!("{word}\n")));
    }
    assert!(!lab.path("src/__pycache__").exists());
}

#[test]
fn the_variables_that_are_set_for_python_are_the_users_where_they_are_declared() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'echo \"<$PYTHONDONTWRITEBYTECODE $PYTHONUNBUFFERED>\" > {out.o}', outputs: [o] } }
  b: { kind: shell, with: { command: 'echo \"b<$PYTHONDONTWRITEBYTECODE>\" > {out.o}', outputs: [o], env: [PYTHONDONTWRITEBYTECODE] } }
",
    );
    let run =
        lab.command(&["run", "pipelines/p.yaml"]).env_remove("PYTHONDONTWRITEBYTECODE").output().unwrap();
    assert!(run.status.success());
    let mut kept = contents(&lab);
    kept.sort();
    assert_eq!(kept, ["<1 1>\n", "b<>\n"]);
}

#[test]
fn the_file_of_an_input_that_changed_while_the_stage_ran_is_named() {
    for (change, named) in [
        ("mkdir d/new; echo > d/new/f", "(`new/f` was added)"),
        ("echo more >> d/deep/b", "(`deep/b` changed)"),
        ("rm d/a", "(`a` was removed)"),
        ("rm -r d/deep", "(`deep` was removed)"),
    ] {
        for input in ["dir: d", "glob: 'd/**/*'"] {
            let named = if input.starts_with("dir") { named.to_owned() } else { named.replace("(`", "(`d/") };
            if input.starts_with("glob") && change.starts_with("rm -r") {
                continue;
            }
            let lab = Lab::new(&format!(
                "stages: {{ s: {{ kind: shell, in: {{ x: {{ {input} }} }}, with: {{ command: '{change}; echo {{in.x}}' }} }} }}"
            ));
            fs::create_dir_all(lab.path("d/deep")).unwrap();
            lab.write("d/a", "a");
            lab.write("d/deep/b", "b");
            let failed = lab.run(&[]).ends_with_code(1).stderr;
            assert!(failed.contains(&format!("changed while the stage ran {named}")), "{input}: {failed}");
            assert!(failed.contains("must write elsewhere"), "{failed}");
        }
    }
}

#[test]
fn a_pattern_over_the_whole_project_leaves_out_what_pipe_keeps() {
    let lab = Lab::new(
        "stages:
  s:
    kind: shell
    in: { x: { glob: '**/*.txt' } }
    with: { command: 'ls -R {in.x} > {out.txt}', outputs: [txt] }
",
    );
    lab.write("a.txt", "a");
    lab.run(&[]).success();
    assert_eq!(lab.run(&[]).success().stages("cached"), ["s"]);
    lab.write("b.txt", "b");
    assert!(lab.run(&["-n"]).success().stdout.contains("added b.txt in **/*.txt"));
}

#[test]
fn a_link_to_nothing_in_a_folder_is_told_where_the_folder_is_written() {
    let lab = Lab::new(
        "stages:
  s: { kind: shell, in: { x: { dir: d } }, with: { command: 'ls {in.x} > {out.x}', outputs: [x] } }
",
    );
    fs::create_dir(lab.path("d")).unwrap();
    symlink("nowhere", lab.path("d/broken")).unwrap();
    let checked = lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr;
    for part in ["`d/broken` is a link to nothing", "pipelines/p.yaml:2:37", "help: remove the link"] {
        assert!(checked.contains(part), "{checked}");
    }
    for (more, code) in [(&["-n"][..], 2), (&[], 1)] {
        let said = lab.run(more).ends_with_code(code).stderr;
        assert!(said.contains("d/broken` is a link to nothing: remove the link"), "{said}");
    }
    lab.write("d/nowhere", "");
    lab.pipe(&["check", "pipelines/p.yaml"]).success();
    lab.run(&[]).success();
}
