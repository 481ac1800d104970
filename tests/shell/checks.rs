//! What is wrong with a command is said before anything runs, with a caret and what to write.

use crate::lab::Lab;

/// What `pipe check` says about a stage with this `in` and `with`.
fn said(inputs: &str, with: &str) -> String {
    let lab = Lab::new(&format!(
        "stages:\n  work:\n    kind: shell\n    in: {{ {inputs} }}\n    with: {{ {with} }}\n"
    ));
    lab.write("train.py", "");
    lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr
}

#[track_caller]
fn holds(said: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is not in\n{said}"));
}

#[test]
fn unknown_placeholders_are_told_with_the_one_that_was_meant() {
    let script = "script: { file: train.py }";
    let told = said(
        script,
        "command: 'python3 {in.scrpt} {out.mdel} {with.lr}', outputs: [model], params: { lr: 1 }",
    );
    holds(&told, &["`{out.mdel}`", "did you mean `{out.model}`?", "did you mean `{params.lr}`?"]);
    assert!(told.contains("p.yaml:5:"), "{told}");
    let told = said(script, "command: 'python3 {in.scrpt}'");
    holds(&told, &["speaks of input `scrpt`", "did you mean `script`?"]);
    holds(&said("", "command: 'echo {metrics}'"), &["name the file: `metrics: metrics.json`"]);
    holds(&said("", "command: 'echo > {out.o}'"), &["name the output: `outputs: [o]`"]);
    holds(&said("", "command: 'echo > {out.o} {out.text}', outputs: [o]"), &["`outputs: [o, text]`"]);
    holds(
        &said("", "command: 'echo > {out.o}', output: [o]"),
        &["did you mean `outputs`?", "name the output: `outputs: [o]`"],
    );
    holds(
        &said("", "command: 'awk {print}'"),
        &["an input is written `{in.print}`", "and the text itself `{{print}}`"],
    );
}

#[test]
fn the_caret_of_a_placeholder_stands_at_the_placeholder() {
    let lab = Lab::new(
        r#"vars: { tool: "python3 {in.tol}" }
stages:
  one: { kind: shell, with: { command: "echo \"é\" {{in.x}} {in.x}" } }
  folded:
    kind: shell
    with:
      command: >-
        echo a
        b {out.o} '{threads}'
  words: { kind: shell, with: { command: [echo, "{in.x}", "{parms.y}"] } }
  variable: { kind: shell, with: { command: "echo ${vars.nix}" } }
  in_variable: { kind: shell, with: { command: "${vars.tool} -v" } }
  twice: { kind: shell, with: { command: "echo {threads} '{threads}'" } }
  escaped: { kind: shell, with: { command: "echo \x7bin.x}" } }
"#,
    );
    let said = lab.pipe(&["check", "pipelines/p.yaml", "--set", "words.params.a={threads}"]);
    insta::assert_snapshot!(said.ends_with_code(2).stderr, @r#"
      x `command` speaks of input `tol`, which stage `in_variable` does not have
       ,-[pipelines/p.yaml:1:24]
     1 | vars: { tool: "python3 {in.tol}" }
       :                        ^^^^^^^^
       `----
      help: write `in: { tol: SOURCE }`

      x `command` speaks of input `x`, which stage `one` does not have
       ,-[pipelines/p.yaml:3:61]
     3 |   one: { kind: shell, with: { command: "echo \"é\" {{in.x}} {in.x}" } }
       :                                                             ^^^^^^
       `----
      help: write `in: { x: SOURCE }`

      x `folded.command`: unknown placeholder `{out.o}`
       ,-[pipelines/p.yaml:9:11]
     9 |         b {out.o} '{threads}'
       :           ^^^^^^^
       `----
      help: name the output: `outputs: [o]`

      x `folded.command`: `{threads}` stands inside quotes
       ,-[pipelines/p.yaml:9:20]
     9 |         b {out.o} '{threads}'
       :                    ^^^^^^^^^
       `----
      help: leave the quotes out, values are quoted already; or write `command` as a list of words,
            which needs none

      x `command.1` speaks of input `x`, which stage `words` does not have
        ,-[pipelines/p.yaml:10:50]
     10 |   words: { kind: shell, with: { command: [echo, "{in.x}", "{parms.y}"] } }
        :                                                  ^^^^^^
        `----
      help: write `in: { x: SOURCE }`

      x `words.command.2`: unknown placeholder `{parms.y}`
        ,-[pipelines/p.yaml:10:60]
     10 |   words: { kind: shell, with: { command: [echo, "{in.x}", "{parms.y}"] } }
        :                                                            ^^^^^^^^^
        `----
      help: did you mean `{params.a}`?

      x unknown variable `nix`
        ,-[pipelines/p.yaml:11:51]
     11 |   variable: { kind: shell, with: { command: "echo ${vars.nix}" } }
        :                                                   ^^^^^^^^^^^
        `----
      help: variables are `tool`

      x `twice.command`: `{threads}` stands inside quotes
        ,-[pipelines/p.yaml:13:42]
     13 |   twice: { kind: shell, with: { command: "echo {threads} '{threads}'" } }
        :                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        `----
      help: leave the quotes out, values are quoted already; or write `command` as a list of words,
            which needs none

      x `command` speaks of input `x`, which stage `escaped` does not have
        ,-[pipelines/p.yaml:14:44]
     14 |   escaped: { kind: shell, with: { command: "echo \x7bin.x}" } }
        :                                            ^^^^^^^^^^^^^^^^
        `----
      help: write `in: { x: SOURCE }`

    pipelines/p.yaml: 9 problems
    "#);
}

#[test]
fn wrong_parameters_are_told() {
    holds(
        &said("", "command: 'echo \"{out.a}\"', outputs: [a]"),
        &["`{out.a}` stands inside quotes", "quoted already"],
    );
    holds(&said("", "command: ''"), &["`command` is empty"]);
    holds(&said("", "command: 3"), &["must be a text, or a list of texts"]);
    holds(&said("", "command: 'true', outputs: [A]"), &["output `A` must be named"]);
    holds(&said("", "command: 'true', outputs: [a, a]"), &["output `a` is named twice"]);
    holds(&said("", "command: 'true', env: ['A=1']"), &["`A=1` is no environment variable"]);
    holds(&said("", "command: 'true', metrics: report"), &["`report` is neither an output nor"]);
    holds(&said("", "command: 'true', metrics: m.json"), &["put `{metrics}` into `command`"]);
    holds(
        &said("", "command: 'echo > {out.a}', outputs: [a, p]"),
        &["not told where to write output `p`", "put `{out.p}` into `command`", "p.yaml:5:53"],
    );
}

#[test]
fn an_output_that_is_the_metrics_may_be_named_by_them() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, with: { command: 'echo {} > {metrics}', outputs: [m], metrics: m } } }",
    );
    lab.pipe(&["check", "pipelines/p.yaml"]).success();
}

const TRAIN: &str = "stages:
  train:
    kind: shell
    with: { command: 'echo {params.acc} {params.deep} > {out.o}', params: { acc: 1, deep: { x: 1 }, old: 2 }, outputs: [o] }
";

#[test]
fn a_setting_that_no_command_takes_is_an_error_with_what_was_meant() {
    let lab = Lab::new(TRAIN);
    let told = lab.run(&["--set", "train.params.acx=0.7"]).ends_with_code(2).stderr;
    holds(
        &told,
        &["the command of stage `train` has no parameter `acx`", "did you mean `train.params.acc`?", "^"],
    );
    let told = lab.run(&["--set", "train.params={ other: 1 }"]).ends_with_code(2).stderr;
    holds(&told, &["has no parameter `other`", "`{params.other}`"]);
    let told = lab.run(&["--set", "train.acc=0.7"]).ends_with_code(2).stderr;
    holds(&told, &["kind `shell` has no parameter `acc`", "did you mean `params.acc`?"]);
    for taken in ["acc=2", "deep.y=2", "old=3"] {
        lab.run(&["--set", &format!("train.params.{taken}")]).success();
    }
    let command = "train.command=echo {params.new} > {out.o}";
    lab.run(&["--set", command, "--set", "train.params.new=1"]).success();
}

#[test]
fn a_parameter_that_no_command_takes_is_mentioned() {
    let said = Lab::new(TRAIN).pipe(&["check", "pipelines/p.yaml"]).success();
    insta::assert_snapshot!(said.stderr, @"note: pipelines/p.yaml:4:101: the command of stage `train` takes no `{params.old}`: the parameter decides reruns alone");
}

#[test]
fn a_direction_is_lower_or_higher_and_of_a_metric_that_is_read() {
    let lab = Lab::new(
        "stages:
  one:
    kind: shell
    with: { command: 'echo > {metrics}', metrics: m.json, better: { val.loss: min } }
  two: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { '*acc': hihger } } }
  three: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { f1: 1 } } }
  four: { kind: shell, with: { command: 'true', better: { loss: lower } } }
  five: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { loss: sideways } } }
",
    );
    insta::assert_snapshot!(lab.pipe(&["check", "pipelines/p.yaml"]).ends_with_code(2).stderr, @"
      x `one.better.val.loss` must be one of lower, higher, not `min`
       ,-[pipelines/p.yaml:4:79]
     4 |     with: { command: 'echo > {metrics}', metrics: m.json, better: { val.loss: min } }
       :                                                                               ^^^
       `----
      help: did you mean `lower`?

      x `two.better.*acc` must be one of lower, higher, not `hihger`
       ,-[pipelines/p.yaml:5:95]
     5 |   two: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { '*acc': hihger } } }
       :                                                                                               ^^^^^^
       `----
      help: did you mean `higher`?

      x `three.better.f1` must be a text, not 1
       ,-[pipelines/p.yaml:6:93]
     6 |   three: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { f1: 1 } } }
       :                                                                                             ^
       `----

      x `better` speaks of metrics, and none are read
       ,-[pipelines/p.yaml:7:57]
     7 |   four: { kind: shell, with: { command: 'true', better: { loss: lower } } }
       :                                                         ^^^^^^^^^^^^^^^
       `----
      help: name the file they are in: `metrics: metrics.json`

      x `five.better.loss` must be one of lower, higher, not `sideways`
       ,-[pipelines/p.yaml:8:94]
     8 |   five: { kind: shell, with: { command: 'echo > {metrics}', metrics: m.json, better: { loss: sideways } } }
       :                                                                                              ^^^^^^^^
       `----

    pipelines/p.yaml: 5 problems
    ");
}
