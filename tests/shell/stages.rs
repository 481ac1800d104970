//! What a command is given, what is kept of it, and how it ends.

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

const COPY: &str = "stages:
  copy:
    kind: shell
    in: { source: { file: source.txt } }
    with: { command: 'cat {in.source} > {out.text}', outputs: [text] }
  upper:
    kind: shell
    in: { text: copy }
    with: { command: 'tr a-z A-Z < {in.text} > {out.text}', outputs: [text] }
";

/// The contents of the only output of `stage` in the latest run.
fn output(lab: &Lab, stage: &str) -> String {
    let digest: String =
        lab.ask(&format!("SELECT digest FROM artifact WHERE stage = '{stage}' ORDER BY run DESC LIMIT 1"));
    let object = format!("cache/v1/objects/{}/{}", &digest[..2], &digest[2..]);
    std::fs::read_to_string(lab.path(&object)).unwrap()
}

#[test]
fn commands_run_once_and_again_when_an_input_changes() {
    let lab = Lab::new(COPY);
    lab.write("source.txt", "one\n");
    assert_eq!(lab.run(&[]).success().stages("done"), ["copy", "upper"]);
    assert_eq!(output(&lab, "upper"), "ONE\n");
    assert!(lab.run(&[]).success().stderr.contains("nothing to do, 2 cached"));

    lab.write("source.txt", "two\n");
    let changed = lab.run(&[]).success();
    assert_eq!(changed.stages("done"), ["copy", "upper"]);
    assert!(changed.stderr.contains("in.source"), "{}", changed.stderr);
    assert_eq!(output(&lab, "upper"), "TWO\n");

    lab.edit("cat {in.source}", "cat  {in.source}");
    let cut_off = lab.run(&[]).success();
    assert_eq!(cut_off.stages("done"), ["copy"], "the same bytes stop the change");
}

#[test]
fn values_with_spaces_and_quotes_arrive_as_they_are() {
    let nasty = "it's \\\"two\\\" $HOME; words *";
    let lab = Lab::new(&format!(
        "stages:
  line:
    kind: shell
    in: {{ odd: {{ file: \"o'd $d name.txt\" }} }}
    with: {{ command: 'cat {{in.odd}} > {{out.text}}; echo {{params.deep.text}} >> {{out.text}}', outputs: [text],
            params: {{ deep: {{ text: \"{nasty}\" }} }} }}
  words:
    kind: shell
    with: {{ command: [python3, -c, 'import sys; open(sys.argv[1], \"w\").write(sys.argv[2])', '{{out.text}}', '{{params.text}}'],
            outputs: [text], params: {{ text: \"{nasty}\" }} }}
"
    ));
    lab.write("o'd $d name.txt", "inside\n");
    lab.run(&[]).success();
    let plain = nasty.replace('\\', "");
    assert_eq!(output(&lab, "line"), format!("inside\n{plain}\n"));
    assert_eq!(output(&lab, "words"), plain);
}

#[test]
fn a_pattern_gives_a_folder_with_the_files_that_match_and_no_others() {
    let lab = Lab::new(
        "stages:
  list:
    kind: shell
    in: { texts: { glob: 'data/**/*.txt' }, folder: { dir: data } }
    with: { command: 'cd {in.texts}; find -L . -type f | sort > {out.names}; cat data/a.txt >> {out.names};
              ls {in.folder} >> {out.names}', outputs: [names] }
",
    );
    std::fs::create_dir_all(lab.path("data/deep")).unwrap();
    lab.write("data/a.txt", "first\n");
    lab.write("data/deep/b.txt", "second\n");
    lab.write("data/c.csv", "third\n");
    lab.run(&[]).success();
    assert_eq!(output(&lab, "list"), "./data/a.txt\n./data/deep/b.txt\nfirst\na.txt\nc.csv\ndeep\n");
}

#[test]
fn the_values_of_declared_variables_are_in_the_key_and_no_others_are_given() {
    let lab = Lab::new(
        "stages:
  show:
    kind: shell
    with: { command: 'echo \"$MODE/$SECRET\" > {out.text}', outputs: [text], env: [MODE] }
",
    );
    let run = |mode: &str, secret: &str| {
        let mut command = lab.command(&["run", "pipelines/p.yaml"]);
        let output = command.env("MODE", mode).env("SECRET", secret).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    run("fast", "a");
    assert_eq!(output(&lab, "show"), "fast/\n");
    assert!(run("fast", "b").contains("nothing to do"));
    let changed = run("slow", "b");
    assert!(changed.contains("environment MODE: fast → slow"), "{changed}");
    assert_eq!(output(&lab, "show"), "slow/\n");
}

#[test]
fn metrics_come_from_a_file_that_the_command_writes_or_from_an_output() {
    let lab = Lab::new(
        "stages:
  json:
    kind: shell
    with: { command: 'echo \"{\\\"test\\\": {\\\"accuracy\\\": 0.75}, \\\"loss\\\": [2, 1]}\" > {metrics}', metrics: metrics.json }
  csv:
    kind: shell
    with: { command: 'printf \"name,value\\nf1,0.5\\n\" > {out.report}', outputs: [report], metrics: report }
",
    );
    lab.run(&[]).success();
    let value =
        |metric: &str| lab.ask::<f64>(&format!("SELECT value FROM final_metrics WHERE metric = '{metric}'"));
    assert!((value("json.test.accuracy") - 0.75).abs() < 1e-12);
    assert!((value("csv.f1") - 0.5).abs() < 1e-12);
}

#[test]
fn a_failed_command_tells_its_code_and_last_lines_and_its_log_has_all_it_printed() {
    let lab = Lab::new(
        "stages:
  bad:
    kind: shell
    with: { command: 'echo to stdout; echo to stderr >&2; exit 7' }
  early:
    kind: shell
    with: { command: 'false; echo never' }
  silent:
    kind: shell
    with: { command: 'true # {out.model}', outputs: [model] }
  pipe:
    kind: shell
    with: { command: 'mkfifo {out.model}', outputs: [model] }
",
    );
    let failed = lab.run(&["--only", "bad"]).ends_with_code(1);
    assert!(failed.stderr.contains("exit code 7; its last lines:"), "{}", failed.stderr);
    assert!(failed.stderr.contains("to stderr"), "{}", failed.stderr);
    assert_eq!(lab.ask::<i64>("SELECT exit_code FROM stage WHERE stage = 'bad'"), 7);
    let log = lab.pipe(&["logs", "@last", "bad"]).success().stdout;
    assert!(log.contains("to stdout") && log.contains("to stderr"), "{log}");

    lab.run(&["--only", "early"]).ends_with_code(1);
    let silent = lab.run(&["--only", "silent"]).ends_with_code(1);
    assert!(silent.stderr.contains("without writing its output `model`"), "{}", silent.stderr);
    assert!(silent.stderr.contains("{out.model}"), "{}", silent.stderr);
    let pipe = lab.run(&["--only", "pipe"]).ends_with_code(1);
    assert!(pipe.stderr.contains("output `model` is no file"), "{}", pipe.stderr);
}

#[test]
fn ctrl_c_stops_a_command_and_everything_it_started() {
    let lab = Lab::new(
        "stages:
  long:
    kind: shell
    with: { command: 'sleep 321 & sleep 321; wait' }
",
    );
    let mut pipe = lab.start_until(&[], "running long");
    let here = lab.path("").canonicalize().unwrap();
    let sleeping = || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let is_ours = |path: &std::path::PathBuf| {
            std::fs::read_link(path.join("cwd")).is_ok_and(|folder| folder == here)
                && std::fs::read(path.join("cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
        };
        processes.map(|entry| entry.path()).filter(is_ours).count()
    };
    wait_until("two sleeps", || sleeping() == 2);
    send(Signal::INT, i32::try_from(pipe.id()).unwrap());
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert_eq!(sleeping(), 0);
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage"), "interrupted");
}

#[test]
fn a_file_of_a_command_feeds_any_kind() {
    let lab = Lab::new(
        "stages:
  reviews:
    kind: shell
    with: { command: 'echo {params.line} > {out.reviews}', outputs: [reviews],
            params: { line: '{\"id\":\"a/1\",\"label\":1,\"text\":\"good\"}' } }
  tokens: { kind: tokenize, in: { reviews: reviews } }
  count: { kind: shell, in: { tokens: tokens }, with: { command: 'wc -c < {in.tokens} > {out.size}', outputs: [size] } }
",
    );
    assert_eq!(lab.run(&[]).success().stages("done"), ["count", "reviews", "tokens"]);
}

#[test]
fn an_object_that_is_there_is_not_replaced_while_others_may_read_it() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::new(COPY);
    lab.write("source.txt", "42\n");
    lab.run(&["--only", "copy"]).success();
    let objects = || lab.files("cache/v1/objects");
    let inode = |file: &std::path::PathBuf| std::fs::metadata(file).unwrap().ino();
    let before: Vec<u64> = objects().iter().map(inode).collect();
    lab.run(&[]).success();
    assert_eq!(before.len(), 1);
    assert_eq!(objects().iter().map(inode).collect::<Vec<_>>(), before);
}

#[test]
fn a_secret_reaches_the_command_and_nothing_else() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'test ${#TOKEN} = 8; echo > {out.x}', outputs: [x], secrets: [TOKEN] } }
",
    );
    let run = |token: &str| {
        let output = lab.command(&["run", "pipelines/p.yaml"]).env("TOKEN", token).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    run("sesame-1");
    assert!(run("sesame-2").contains("cached a "), "its value decides nothing");
    for file in lab.files(".") {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"sesame"), "{} has it", file.display());
    }
    lab.edit("secrets:", "env: [TOKEN], secrets:");
    let said = lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr;
    assert!(said.contains("`TOKEN` is a secret, but its value is recorded as `env` names it, too"), "{said}");
}

#[test]
fn what_fails_before_a_pipe_fails_the_stage_if_asked_for() {
    let lab = Lab::new(
        "stages:
  a: { kind: shell, with: { command: 'false | cat > {out.x}', outputs: [x] } }
",
    );
    let said = lab.pipe(&["check", "pipelines/p.yaml"]).success();
    insta::assert_snapshot!(said.stderr, @"note: pipelines/p.yaml:2:38: what fails before a `|` in the command of stage `a` is not seen: `pipefail: true` under `with` fails the stage");
    lab.run(&[]).success();
    lab.edit("outputs:", "pipefail: true, outputs:");
    assert_eq!(lab.pipe(&["check", "pipelines/p.yaml"]).success().stderr, "");
    let said = lab.run(&[]).ends_with_code(1).stderr;
    assert!(said.contains("exit code 1"), "{said}");
}

#[test]
fn an_output_whose_name_has_an_ending_is_written_by_programs_that_go_by_it() {
    // Like `plt.savefig`, it takes the form from the ending, and adds one where there is none.
    let program = "case ${1##*/} in *.*) echo \"${1##*.}\" > \"$1\";; *) echo png > \"$1.png\";; esac\n";
    let lab = Lab::new(
        "stages:
  plot: { kind: shell, in: { program: { file: plot.sh } }, with: { command: 'sh {in.program} {out.plot}', outputs: [plot.svg] } }
  read: { kind: shell, in: { plot: plot }, with: { command: 'grep svg {in.plot} > {out.o}', outputs: [o] } }
",
    );
    lab.write("plot.sh", program);
    lab.run(&[]).success();
    assert_eq!(lab.run(&[]).success().stages("cached"), ["plot", "read"]);
    lab.pipe(&["get", "@last", "plot", "--into", "got"]).success();
    assert_eq!(std::fs::read_to_string(lab.path("got/plot/plot.svg")).unwrap(), "svg\n");
    assert_eq!(lab.pipe(&["get", "@last", "plot.plot"]).success().stdout, "svg\n");
    lab.pipe(&["verify", "@last"]).success();

    lab.edit("[plot.svg]", "[plot]");
    let failed = lab.run(&[]).ends_with_code(1).stderr;
    assert!(failed.contains("the command ended without writing its output `plot`"), "{failed}");
    assert!(failed.contains("it wrote `plot.png`: write `plot.png` under `outputs`"), "{failed}");
}

#[test]
fn endings_of_outputs_are_checked() {
    let told = |outputs: &str, command: &str| {
        let with = format!("command: '{command}', outputs: [{outputs}]");
        let lab = Lab::new(&format!("stages: {{ a: {{ kind: shell, with: {{ {with} }} }} }}\n"));
        lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr
    };
    for wrong in ["plot.", "'plot. svg'", "plot..svg", "plot.svg.", "'plot.a/b'"] {
        assert!(told(wrong, "echo > {out.plot}").contains("must end as files do"), "{wrong}");
    }
    assert!(told("plot.svg, plot.png", "echo > {out.plot}").contains("output `plot` is named twice"));
    assert!(told("plot.svg", "echo > {out.plot.svg}").contains("did you mean `{out.plot}`?"));
    assert!(told("plot.svg", "echo").contains("put `{out.plot}` into `command`"));
}
