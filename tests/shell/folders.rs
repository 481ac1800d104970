//! Outputs that are folders: packed into one object, and folders again for the stages that take them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use crate::lab::{Lab, Said, send, wait_until};

/// A stage that writes a folder of everything, and one that says what it was given.
const MODEL: &str = "stages:
  make:
    kind: shell
    with:
      command: |
        mkdir -p {out.model}/deep/er {out.model}/none
        echo weights > {out.model}/deep/er/weights.bin
        : > {out.model}/empty
        echo 'echo hello' > {out.model}/run.sh
        chmod 700 {out.model}/run.sh
        ln -s deep/er/weights.bin {out.model}/latest
        ln -s deep {out.model}/same
      outputs: [model/]
  use:
    kind: shell
    in: { model: make }
    with:
      command: |
        cd {in.model}
        find . ! -type d -printf '%y %m %s %P\\n' | sort -k4 > {out.list}
        cat latest same/er/weights.bin >> {out.list}
        ./run.sh >> {out.list}
      outputs: [list]
";

/// Where the object lies that `stage` wrote in the latest run.
fn object(lab: &Lab, stage: &str) -> PathBuf {
    let digest: String =
        lab.ask(&format!("SELECT digest FROM artifact WHERE stage = '{stage}' ORDER BY run DESC LIMIT 1"));
    lab.path(&format!("cache/v1/objects/{}/{}", &digest[..2], &digest[2..]))
}

fn contents(lab: &Lab, stage: &str) -> String {
    fs::read_to_string(object(lab, stage)).unwrap()
}

/// A project with one stage `s` of this `with`.
fn lab_of(with: &str) -> Lab {
    Lab::new(&format!("stages:\n  s: {{ kind: shell, with: {{ {with} }} }}\n"))
}

/// Why its stage fails; not where its outputs are kept.
fn failure(with: &str) -> String {
    let said = lab_of(with).run(&["--progress", "plain"]).ends_with_code(1);
    let lines = said.stderr.lines().skip_while(|line| !line.trim_start().starts_with("failed s")).skip(1);
    let lines = lines.map(str::trim).take_while(|line| !line.starts_with("at "));
    lines.filter(|line| !line.starts_with("its outputs are in ")).collect::<Vec<_>>().join("\n")
}

/// What `pipe check` says is wrong.
fn wrong(lab: &Lab) -> String {
    lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr
}

#[track_caller]
fn leaves_nothing_behind(lab: &Lab) {
    assert_eq!(lab.files("cache/v1/scratch"), [""; 0].map(PathBuf::from));
}

#[test]
fn a_stage_is_given_the_files_of_a_folder_that_another_one_wrote() {
    let lab = Lab::new(MODEL);
    assert_eq!(lab.run(&[]).success().stages("done"), ["make", "use"]);
    insta::assert_snapshot!(contents(&lab, "use"), @r"
    f 444 8 deep/er/weights.bin
    f 444 0 empty
    f 444 8 latest
    f 555 11 run.sh
    f 444 8 same/er/weights.bin
    weights
    weights
    hello
    ");
    assert_eq!(lab.ask::<String>("SELECT type FROM artifact WHERE stage = 'make'"), "folder");
    leaves_nothing_behind(&lab);
    assert!(lab.run(&[]).success().stderr.contains("nothing to do, 2 cached"));
    lab.edit("cat latest", "cat run.sh latest");
    let again = lab.run(&[]).success();
    assert_eq!((again.stages("cached"), again.stages("done")), (vec!["make"], vec!["use"]));
    assert!(contents(&lab, "use").contains("echo hello\nweights\n"));
    leaves_nothing_behind(&lab);
}

#[test]
fn the_same_files_written_otherwise_stop_the_change() {
    let lab = Lab::new(MODEL);
    lab.run(&[]).success();
    let before = object(&lab, "make");
    lab.edit(
        "mkdir -p {out.model}/deep/er {out.model}/none\n",
        "mkdir {out.model}; echo > {out.model}/run.sh; touch -d 1999-01-01 {out.model}/latest
        rm {out.model}/*; mkdir -p {out.model}/deep/er {out.model}/other/none\n",
    );
    lab.edit("ln -s deep/er/weights.bin {out.model}/latest", "echo weights > {out.model}/latest");
    let said = lab.run(&[]).success();
    assert_eq!((said.stages("done"), said.stages("cached")), (vec!["make"], vec!["use"]));
    assert_eq!(object(&lab, "make"), before);
}

#[test]
fn a_folder_that_changes_in_a_name_or_a_mode_reruns_what_takes_it() {
    for (from, to) in [("/empty", "/empty.txt"), ("chmod 700", "chmod 644"), ("echo weights", "echo Weights")]
    {
        let lab = Lab::new(MODEL);
        lab.edit("./run.sh", "sh run.sh");
        lab.run(&[]).success();
        lab.edit(from, to);
        assert_eq!(lab.run(&[]).success().stages("done"), ["make", "use"], "{to}");
    }
}

#[test]
fn a_damaged_folder_is_written_again() {
    let lab = Lab::new(MODEL);
    lab.run(&[]).success();
    let file = object(&lab, "make");
    let right = fs::read(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, &right[..right.len() / 2]).unwrap();
    lab.edit("cat latest", "cat  latest");
    let said = lab.run(&[]).success();
    assert_eq!(said.stages("done"), ["make", "use"]);
    assert!(said.stderr.contains("of output `model` is damaged"), "{}", said.stderr);
    assert_eq!(fs::read(&file).unwrap(), right);
}

#[test]
fn a_folder_has_the_permissions_of_other_objects() {
    let lab = Lab::new(
        "stages:
  s: { kind: shell, with: { command: 'mkdir {out.a}; echo > {out.a}/x; echo > {out.b}', outputs: [a/, b] } }
",
    );
    lab.run(&[]).success();
    let mode = |file: &PathBuf| fs::metadata(file).unwrap().permissions().mode();
    let modes: Vec<u32> = lab.files("cache/v1/objects").iter().map(mode).collect();
    assert_eq!(modes.len(), 2);
    assert_eq!(modes[0], modes[1], "{modes:?}");
}

#[test]
fn what_is_not_as_declared_fails_and_says_what_to_write() {
    insta::assert_snapshot!(failure("command: 'mkdir {out.model}', outputs: [model]"), @"
    output `model` is a folder
    help: write `model/` under `outputs`: with the slash, an output is a folder
    ");
    insta::assert_snapshot!(failure("command: 'echo > {out.model}', outputs: [model/]"), @"
    output `model` is no folder
    help: the command must make a folder there, as with `mkdir -p {out.model}`; for a file, write `model` under `outputs`, without the slash
    ");
    insta::assert_snapshot!(failure("command: 'true {out.model}', outputs: [model/]"), @"
    the command ended without writing its output `model`
    help: the command must make a folder there, as with `mkdir -p {out.model}`
    ");
}

#[test]
fn what_has_no_contents_to_keep_fails_and_is_named() {
    let of = |make: &str| {
        failure(&format!("command: 'mkdir -p {{out.m}}/d; cd {{out.m}}/d; {make}', outputs: [m/]"))
    };
    insta::assert_snapshot!(of("ln -s nowhere broken"), @"
    output `m` cannot be kept
    because `m/d/broken` is a link to nothing: remove the link, or make what it leads to
    ");
    insta::assert_snapshot!(of("ln -s .. up"), @"
    output `m` cannot be kept
    because `m/d/up` leads back to a folder above it: remove the link
    ");
    insta::assert_snapshot!(of("mkfifo pipe"), @"
    output `m` cannot be kept
    because `m/d/pipe` is a pipe, socket or device: remove it
    ");
    insta::assert_snapshot!(of("ln -s itself itself"), @"
    output `m` cannot be kept
    because cannot read `m/d/itself`
    because Too many levels of symbolic links (os error 40)
    ");
}

#[test]
fn outputs_may_be_links_and_lead_into_each_other() {
    let lab = Lab::new(
        "stages:
  make:
    kind: shell
    with:
      command: |
        mkdir {out.first} {out.second}; echo one > {out.first}/one
        ln -s {out.first}/one {out.a}; ln -s {out.first}/one {out.z}; ln -s {out.first}/one {out.second}/link
      outputs: [a, first/, second/, z]
  elsewhere:
    kind: shell
    with: { command: 'mkdir elsewhere; echo two > elsewhere/two; ln -s $PWD/elsewhere {out.third}', outputs: [third/] }
  use:
    kind: shell
    in: { a: make.a, first: make.first, second: make.second, z: make.z, third: elsewhere }
    with: { command: 'cat {in.a} {in.first}/one {in.second}/link {in.z} {in.third}/two > {out.all}', outputs: [all] }
",
    );
    lab.run(&[]).success();
    assert_eq!(contents(&lab, "use"), "one\none\none\none\ntwo\n");
    assert_eq!(fs::read_to_string(lab.path("elsewhere/two")).unwrap(), "two\n");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_kept() {
    let lab = lab_of(
        "command: 'mkdir -p {out.m}/d; echo > {out.m}/d/x; chmod 555 {out.m}/d {out.m}', outputs: [m/]",
    );
    lab.run(&[]).success();
    leaves_nothing_behind(&lab);
}

#[test]
fn an_input_that_is_a_folder_is_its_own_in_every_attempt() {
    let lab = Lab::new(
        "stages:
  make: { kind: shell, with: { command: 'mkdir {out.m}; echo x > {out.m}/x; echo y > {out.m}/y', outputs: [m/] } }
  take:
    kind: shell
    in: { m: make }
    retry: 1
    with: { command: 'ls {in.m} > {out.names}; rm -f {in.m}/x; test -e tried || { touch tried; exit 1; }', outputs: [names] }
",
    );
    lab.run(&[]).success();
    assert_eq!(contents(&lab, "take"), "x\ny\n");
    lab.pipe(&["verify", "--cache"]).success();
}

#[test]
fn after_a_kill_the_folder_is_unpacked_anew() {
    let lab = Lab::new(
        "stages:
  make: { kind: shell, with: { command: 'mkdir {out.m}; echo x > {out.m}/x; echo y > {out.m}/y', outputs: [m/] } }
  take:
    kind: shell
    in: { m: make }
    with: { command: 'test -e go || { rm -f {in.m}/x; touch waits; exec sleep 600; }; cat {in.m}/* > {out.all}', outputs: [all] }
",
    );
    let mut pipe = lab.start_until(&[], "running take");
    wait_until("the command", || lab.path("waits").exists());
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();
    lab.write("go", "");
    assert_eq!(lab.run(&[]).success().stages("done"), ["take"]);
    assert_eq!(contents(&lab, "take"), "x\ny\n");
    leaves_nothing_behind(&lab);
}

#[test]
fn a_stage_that_is_stopped_while_its_folder_is_unpacked_is_interrupted_and_runs_next_time() {
    let lab = Lab::new(
        "stages:
  make: { kind: shell, with: { command: 'mkdir {out.m}; truncate -s 400M {out.m}/x', outputs: [m/] } }
  take: { kind: shell, in: { m: make }, with: { command: 'wc -c {in.m}/x' } }
",
    );
    lab.run(&["--only", "make"]).success();
    let mut pipe = lab.start_until(&[], "running take");
    send(Signal::INT, i32::try_from(pipe.id()).unwrap());
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage WHERE stage = 'take'"), "interrupted");
    assert_eq!(lab.run(&[]).success().stages("done"), ["take"]);
    leaves_nothing_behind(&lab);
}

#[test]
fn a_kind_that_takes_a_folder_is_given_one() {
    let lab = Lab::new(
        "stages:
  archive:
    kind: shell
    with:
      command: |
        for part in train test; do for side in pos neg; do
          mkdir -p {out.imdb}/$part/$side; echo \"$part $side\" > {out.imdb}/$part/$side/0_9.txt
        done; done
      outputs: [imdb/]
  reviews: { kind: reviews, in: { archive: archive }, with: { train: all, test: all } }
",
    );
    let said = lab.run(&[]).success();
    assert_eq!(said.stages("done"), ["archive", "reviews"]);
}

#[test]
fn a_folder_is_not_taken_for_a_file() {
    let lab = Lab::new(
        "stages:
  make: { kind: shell, with: { command: 'mkdir {out.m}', outputs: [m/] } }
  tokens: { kind: tokenize, in: { reviews: make } }
",
    );
    insta::assert_snapshot!(wrong(&lab), @"
     x `tokens.reviews` takes reviews, `make.m` gives folder
      ,-[pipelines/p.yaml:3:44]
    3 |   tokens: { kind: tokenize, in: { reviews: make } }
      :                                            ^^^^
      `----
     help: a stage of kind `shell` can take a file out of it: `cp {in.NAME}/FILE {out.NAME}`
    ");
}

#[test]
fn a_folder_is_declared_once_and_gives_no_metrics() {
    let lab = lab_of("command: 'mkdir {out.m}', outputs: [m/, m], metrics: m");
    insta::assert_snapshot!(wrong(&lab), @"
      x `s.outputs.1`: output `m` is named twice
       ,-[pipelines/p.yaml:2:69]
     2 |   s: { kind: shell, with: { command: 'mkdir {out.m}', outputs: [m/, m], metrics: m } }
       :                                                                     ^
       `----

      x `s.metrics`: output `m/` is a folder, and metrics are read from a file
       ,-[pipelines/p.yaml:2:82]
     2 |   s: { kind: shell, with: { command: 'mkdir {out.m}', outputs: [m/, m], metrics: m } }
       :                                                                                  ^
       `----
      help: name a file that the command writes: `metrics: metrics.json`

    pipelines/p.yaml: 2 problems
    ");
}

/// A stage that copies `state` into its output, which it does not declare.
const UNDECLARED: &str = "stages:
  make: { kind: shell, with: { command: 'cp -r state {out.m}', outputs: [m/] } }
  use: { kind: shell, in: { m: make.m }, with: { command: 'ls {in.m} > {out.names}', outputs: [names] } }
";

fn verified(lab: &Lab, run: &str) -> String {
    let Said { stdout, .. } = lab.pipe(&["verify", run]);
    let lines = stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

fn state(lab: &Lab, change: impl FnOnce(&Path)) {
    let state = lab.path("state");
    let _ = fs::remove_dir_all(&state);
    fs::create_dir_all(state.join("deep")).unwrap();
    lab.write("state/a", "a\n");
    lab.write("state/deep/b", "id,score\nx,0.5\n");
    change(&state);
}

#[test]
fn verify_names_the_file_of_a_folder_that_differs() {
    let lab = Lab::new(UNDECLARED);
    state(&lab, |_| {});
    lab.run(&[]).success();
    insta::assert_snapshot!(verified(&lab, "run_1"), @"
    identical make
    identical use
    ");
    state(&lab, |state| fs::write(state.join("deep/b"), "id,score\nx,0.25\n").unwrap());
    insta::assert_snapshot!(verified(&lab, "run_1"), @"
    different make output m: file `deep/b`: line 2, `score`: `0.5` → `0.25`, largest difference 2.5e-1
    identical use
    ");
    lab.pipe(&["verify", "run_1", "--tolerance", "0.3"]).success();
    state(&lab, |state| fs::rename(state.join("a"), state.join("c")).unwrap());
    insta::assert_snapshot!(verified(&lab, "run_1"), @"
    different make output m: file `a` is missing
    identical use
    ");
    state(&lab, |state| fs::write(state.join("deep/c"), "").unwrap());
    insta::assert_snapshot!(verified(&lab, "run_1"), @"
    different make output m: file `deep/c` is new
    identical use
    ");
    state(&lab, |state| fs::set_permissions(state.join("a"), fs::Permissions::from_mode(0o755)).unwrap());
    insta::assert_snapshot!(verified(&lab, "run_1"), @"
    different make output m: file `a` is executable
    identical use
    ");
}

#[test]
fn verify_gives_a_folder_to_a_stage_whose_run_did_not_record_where_it_came_from() {
    let lab = Lab::new(UNDECLARED);
    state(&lab, |_| {});
    lab.run(&[]).success();
    lab.run(&["--only", "use", "--force"]).success();
    let said = lab.pipe(&["verify", "run_2"]).success();
    assert!(said.stderr.contains("run_2: 1 identical"), "{}{}", said.stdout, said.stderr);
}

#[test]
fn reproduce_computes_a_folder_and_what_takes_it() {
    let lab = Lab::new(UNDECLARED);
    state(&lab, |_| {});
    lab.run(&[]).success();
    lab.pipe(&["reproduce", "run_1", "--force"]).success();
    state(&lab, |state| fs::write(state.join("a"), "b\n").unwrap());
    let said = lab.pipe(&["reproduce", "run_1", "--force"]).ends_with_code(1);
    assert!(said.stdout.contains("file `a`: line 1: `a` → `b`"), "{}", said.stdout);
}
