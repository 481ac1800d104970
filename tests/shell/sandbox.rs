//! A command with `sandbox: true` touches nothing but what it declares.

use crate::lab::Lab;

/// A stage `work` with these inputs and this `with`, in a sandbox.
fn lab(inputs: &str, with: &str) -> Lab {
    let lab = Lab::new(&format!(
        "stages:
  work:
    kind: shell
    in: {{ {inputs} }}
    with: {{ {with}, sandbox: true }}
"
    ));
    lab.write("data.txt", "declared\n");
    lab.write("secret.txt", "undeclared\n");
    lab
}

#[test]
fn an_undeclared_file_cannot_be_read_and_the_error_says_what_could() {
    let lab =
        lab("data: { file: data.txt }", "command: 'cat {in.data} secret.txt > {out.text}', outputs: [text]");
    let failed = lab.run(&[]).ends_with_code(1);
    for part in [
        "secret.txt: Permission denied",
        "`sandbox: true` was on",
        "`in.data` (data.txt)",
        "/usr",
        "in: { NAME: { file: PATH } }",
    ] {
        assert!(failed.stderr.contains(part), "`{part}` is not in\n{}", failed.stderr);
    }
    lab.edit("data: { file: data.txt }", "data: { file: data.txt }, secret: { file: secret.txt }");
    lab.run(&[]).success();
}

#[test]
fn what_is_declared_can_be_read_and_what_belongs_to_the_stage_written() {
    let lab = lab(
        "data: { file: data.txt }, folder: { dir: folder }, texts: { glob: 'texts/*.txt' }",
        "command: 'cat {in.data} {in.folder}/a {in.folder}/link {in.texts}/texts/b.txt > $TMPDIR/all; mv $TMPDIR/all {out.text};
           touch {checkpoint}/here; echo \"{\\\"loss\\\": 1}\" > {metrics}; echo > /dev/null', outputs: [text], metrics: m.json",
    );
    for folder in ["folder", "texts"] {
        std::fs::create_dir(lab.path(folder)).unwrap();
    }
    lab.write("folder/a", "a\n");
    std::os::unix::fs::symlink(lab.path("secret.txt"), lab.path("folder/link")).unwrap();
    lab.write("texts/b.txt", "b\n");
    lab.run(&[]).success();
    assert!((lab.ask::<f64>("SELECT value FROM final_metrics") - 1.0).abs() < 1e-12);
}

#[test]
fn nothing_is_written_beside_the_outputs() {
    let lab = lab(
        "data: { file: data.txt }",
        "command: 'echo > {out.text}; echo changed > data.txt', outputs: [text]",
    );
    lab.run(&[]).ends_with_code(1);
    assert_eq!(std::fs::read_to_string(lab.path("data.txt")).unwrap(), "declared\n");
}

#[test]
fn python_runs_and_cannot_import_what_is_not_declared() {
    let lab = lab("script: { file: train.py }", "command: 'python3 {in.script} {out.text}', outputs: [text]");
    lab.write(
        "train.py",
        "import json, random, subprocess, sys, tempfile\n\
         tempfile.NamedTemporaryFile()\n\
         open(sys.argv[1], 'w').write(subprocess.check_output(['echo', 'hello'], text=True))\n",
    );
    lab.run(&[]).success();
    lab.write("helper.py", "");
    lab.write("train.py", "import helper\n");
    let failed = lab.run(&[]).ends_with_code(1);
    assert!(failed.stderr.contains("No module named 'helper'"), "{}", failed.stderr);
}

#[test]
fn a_stage_beside_it_is_not_restricted_and_switching_it_on_reruns() {
    let lab = lab("data: { file: data.txt }", "command: 'cat {in.data}'");
    let text = std::fs::read_to_string(lab.path("pipelines/p.yaml")).unwrap();
    lab.write(
        "pipelines/p.yaml",
        text + "  open: { kind: shell, with: { command: 'cat secret.txt' } }\n  \
                after: { kind: shell, in: { data: { file: data.txt } }, with: { command: 'cat secret.txt {in.data}' } }\n",
    );
    lab.run(&["--jobs", "1"]).success();
    lab.edit("sandbox: true", "sandbox: false");
    let off = lab.run(&[]).success();
    assert_eq!(off.stages("done"), ["work"], "{}", off.stderr);
}

#[test]
fn a_folder_among_the_outputs_can_be_worked_in_and_one_among_the_inputs_read() {
    let lab = Lab::new(
        "stages:
  make:
    kind: shell
    with:
      command: |
        mkdir -p {out.model}/a/b; echo x > {out.model}/a/x; mv {out.model}/a/x {out.model}/a/b/y
        echo > {out.model}/z; ln {out.model}/z {out.model}/hard; rm {out.model}/z; mv {out.model}/a {out.model}/c
      outputs: [model/]
      sandbox: true
  use:
    kind: shell
    in: { model: make }
    with: { command: 'cat {in.model}/c/b/y > {out.text}; ls {in.model} >> {out.text}', outputs: [text], sandbox: true }
",
    );
    assert_eq!(lab.run(&[]).success().stages("done"), ["make", "use"]);
    lab.pipe(&["verify", "@last"]).success();
}
