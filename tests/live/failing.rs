//! A stage that fails says what happened, where it is written, and how it is tried again.

use crate::lab::{Lab, Said};

/// What is said from the line about the failed stage on, up to how the run ended.
fn block(said: &Said) -> String {
    let lines = said.stderr.lines().skip_while(|line| !line.trim_start().starts_with("failed "));
    let lines = lines.take_while(|line| !line.contains("failed run_"));
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The command of the line that begins with `again`.
#[track_caller]
fn again(said: &Said) -> String {
    let line = said.stderr.lines().find_map(|line| line.trim_start().strip_prefix("again "));
    line.unwrap_or_else(|| panic!("{}", said.stderr)).to_owned()
}

#[test]
fn the_log_the_place_and_the_command_are_told() {
    let lab = Lab::new(
        "name: p
stages:
  bad: { kind: shell, with: { command: 'seq -f \"line %g\" 30; exit 3 # {out.y} {params.a}', outputs: [y] } }
",
    );
    let said = lab.run(&["-s", "bad.params={a: 'b c'}"]).ends_with_code(1);
    let block = block(&said);
    let mut lines = block.lines();
    assert!(lines.next().unwrap().starts_with("   failed bad  after "), "{block}");
    assert_eq!(lines.next(), Some("          the command ended with exit code 3; its last lines:"));
    let log: Vec<String> = (11..=30).map(|number| format!("            line {number}")).collect();
    assert_eq!(lines.by_ref().take(20).collect::<Vec<_>>(), log);
    let rest: Vec<&str> = lines.collect();
    assert_eq!(
        rest,
        [
            "       at pipelines/p.yaml:3:3",
            r"    again pipe run pipelines/p.yaml -s 'bad.params={a: '\''b c'\''}'",
            "      log pipe logs run_1 bad",
        ]
    );
    let whole = lab.pipe(&["logs", "run_1", "bad"]).success();
    assert_eq!(whole.stdout.lines().count(), 30);
}

#[test]
fn what_an_exit_code_or_a_signal_means_is_told() {
    let told = |command: &str| {
        let text = format!("stages: {{ bad: {{ kind: shell, with: {{ command: '{command}' }} }} }}");
        Lab::new(&text).run(&[]).ends_with_code(1).stderr
    };
    let missing = told("surely-no-such-program");
    assert!(missing.contains("exit code 127 (what it calls is not there)"), "{missing}");
    let killed = told("kill -9 $$");
    assert!(killed.contains("ended by signal 9 (killed"), "{killed}");
    let inner = told("sh -c \"kill -11 \\$\\$\"; exit $?");
    assert!(inner.contains("exit code 139 (signal 11: invalid memory access: a bug)"), "{inner}");
}

#[test]
fn the_command_tries_again_what_failed_and_only_that() {
    let lab = Lab::new(
        "stages:
  good: { kind: shell, with: { command: 'echo 1 > {out.y}', outputs: [y] } }
  bad: { kind: shell, in: { x: good }, with: { command: 'test -e ready && cp {in.x} {out.y}', outputs: [y] } }
  other: { kind: shell, with: { command: 'exit 1' } }
",
    );
    let run = |said: &Said| {
        let command = again(said);
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(words[0], "pipe");
        lab.pipe(&words[1..])
    };
    let said = lab.run(&["--until", "bad", "-j", "1"]).ends_with_code(1);
    assert_eq!(again(&said), "pipe run pipelines/p.yaml -j 1 --until bad");
    lab.write("ready", "");
    let done = run(&said).success();
    assert_eq!((done.stages("cached"), done.stages("done")), (vec!["good"], vec!["bad"]));

    // A stage that has a result and was forced is forced again; what was forced and done is not.
    std::fs::remove_file(lab.path("ready")).unwrap();
    let said = lab.run(&["--until", "bad", "--force"]).ends_with_code(1);
    assert_eq!(again(&said), "pipe run pipelines/p.yaml --from bad --force");
    lab.write("ready", "");
    let done = run(&said).success();
    assert_eq!(done.stages("done"), ["bad"]);
}

#[test]
fn the_commands_work_from_the_folder_where_they_are_told() {
    let lab = Lab::new("stages: { bad: { kind: shell, with: { command: 'echo no; exit 1' } } }");
    let mut command = lab.command(&["run", "p.yaml"]);
    let output = command.current_dir(lab.path("pipelines")).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("again pipe run p.yaml\n"), "{stderr}");
    assert!(stderr.contains("log pipe logs run_1 bad\n"), "{stderr}");

    let elsewhere = tempfile::tempdir().unwrap();
    let file = lab.path("pipelines/p.yaml");
    let mut command = lab.command(&["run", file.to_str().unwrap()]);
    let output = command.current_dir(elsewhere.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let root = lab.path(".").canonicalize().unwrap();
    let log = format!("log pipe logs --root {} run_2 bad\n", root.display());
    assert!(stderr.contains(&log), "{log}{stderr}");

    // A root that was named has to be named again.
    let mut command = lab.command(&["run", file.to_str().unwrap(), "--root", root.to_str().unwrap()]);
    let output = command.current_dir(elsewhere.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let log = format!("log pipe logs --root {} run_3 bad\n", root.display());
    assert!(stderr.contains(&log), "{log}{stderr}");
}
