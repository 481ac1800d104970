//! Several GPUs: each stage that asks for one has it to itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    fake::{Fake, noted},
    lab::{EXPERIMENT, Lab, Said},
};

/// A command with `gpus` GPUs that notes when it begins and ends, and between does what `meanwhile` says.
fn stage(name: &str, gpus: usize, meanwhile: &str) -> String {
    format!(
        "  {name}:
    kind: shell
    resources: {{ gpus: {gpus} }}
    with:
      command: 'echo begin {name} $CUDA_VISIBLE_DEVICES >> order; {meanwhile} echo end {name} >> order; echo {name} > {{out.o}}'
      outputs: [o]
"
    )
}

/// What the commands noted: `begin NAME GPUS` and `end NAME`.
fn order(lab: &Lab) -> Vec<String> {
    std::fs::read_to_string(lab.path("order")).unwrap().lines().map(str::to_owned).collect()
}

/// The GPUs that each stage had; no two may have had one at the same time.
#[track_caller]
fn had(lab: &Lab) -> BTreeMap<String, String> {
    let (mut had, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for line in order(lab) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["begin", name, gpus] => {
                let new = gpus.split(',').all(|gpu| taken.insert(gpu.to_owned()));
                assert!(new, "{name} has one that another stage has: {:?}", order(lab));
                had.insert((*name).to_owned(), (*gpus).to_owned());
            }
            ["end", name] => had[*name].split(',').for_each(|gpu| assert!(taken.remove(gpu))),
            other => panic!("{other:?}"),
        }
    }
    had
}

/// Waits in a shell until the stage `other` has begun, some seconds at most.
fn until_begun(other: &str) -> String {
    format!("for i in $(seq 200); do grep -q \"begin {other} \" order && break; sleep 0.05; done;")
}

#[test]
fn stages_side_by_side_have_a_gpu_each_and_the_others_wait() {
    let mut pipeline = "stages:\n".to_owned();
    pipeline += &stage("a", 1, &until_begun("b"));
    pipeline += &stage("b", 1, &until_begun("a"));
    for name in ["c", "d", "e"] {
        pipeline += &stage(name, 1, "");
    }
    let lab = Lab::new(&pipeline);
    Fake::with_gpus(2).run(&lab, &["-j", "8"]).success();
    let had = had(&lab);
    assert_eq!(had.len(), 5);
    assert_eq!(BTreeSet::from([&had["a"], &had["b"]]), BTreeSet::from([&"0".into(), &"1".into()]));
    let order = order(&lab);
    let at = |line: &str| order.iter().position(|other| other.starts_with(line)).unwrap();
    assert!(at("begin b") < at("end a") && at("begin a") < at("end b"), "side by side: {order:?}");
}

#[test]
fn a_stage_may_have_several_and_a_failed_one_gives_them_back() {
    let mut pipeline = "stages:\n".to_owned();
    pipeline += &stage("a", 2, "");
    pipeline += &stage("b", 1, "echo end b >> order; exit 1;");
    pipeline += &stage("c", 2, "");
    let lab = Lab::new(&pipeline);
    Fake::with_gpus(2).run(&lab, &["-j", "8", "--keep-going"]).ends_with_code(1);
    let had = had(&lab);
    assert_eq!((had["a"].as_str(), had["c"].len()), ("0,1", 3));
}

#[test]
fn more_gpus_than_there_are_is_an_error_before_the_run() {
    let lab = Lab::new(&format!("stages:\n{}{}", stage("a", 1, ""), stage("b", 3, "")));
    let said = Fake::with_gpus(2).run(&lab, &[]).ends_with_code(2);
    assert!(said.stderr.contains("stage `b` needs 3 GPUs, this run has 2"), "{}", said.stderr);
    assert!(!lab.path("order").exists() && !lab.path("runs.db").exists());
    Fake::with_gpus(3).run(&lab, &[]).success();
    // What is cached needs none.
    let again = Fake::with_gpus(1).run(&lab, &[]).success();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
    let again = Fake::with_gpus(1).run(&lab, &["--only", "b"]).success();
    assert!(again.stderr.contains("nothing to do"), "{}", again.stderr);
}

#[test]
fn numbers_are_those_that_this_process_was_given() {
    let mut pipeline = "stages:\n".to_owned();
    pipeline += &stage("a", 1, &until_begun("b"));
    pipeline += &stage("b", 1, &until_begun("a"));
    let lab = Lab::new(&pipeline);
    Fake::with_gpus(2).seen_as("3,GPU-5").run(&lab, &["-j", "8"]).success();
    let had = had(&lab);
    assert_eq!(had.values().map(String::as_str).collect::<BTreeSet<_>>(), BTreeSet::from(["3", "GPU-5"]));
}

#[test]
fn programs_with_a_cuda_of_their_own_need_no_worker() {
    let lab = Lab::new(&format!("stages:\n{}", stage("a", 2, "")));
    let run = |visible: &str| {
        let mut command = lab.command(&["run", "pipelines/p.yaml"]);
        let output = command
            .env("PIPE_CUDA_WORKER", "/nowhere/worker")
            .env("CUDA_VISIBLE_DEVICES", visible)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    };
    for too_few in ["4", "4,-1,5", ""] {
        let said = run(too_few).ends_with_code(2);
        assert!(said.stderr.contains("stage `a` needs 2 GPUs"), "{}", said.stderr);
    }
    let said = run("4,5").success();
    assert_eq!(had(&lab)["a"], "4,5", "{}", said.stderr);
}

#[test]
fn models_share_the_gpus_and_one_that_asks_for_none_stays_on_the_processor() {
    let stage = "other: { kind: encode, in: { tokens: tokens_test, weights: gpt2 }, with: { blocks: 0 }";
    let pipeline = format!("{EXPERIMENT}  {stage}, resources: {{ gpus: 0 }} }}\n");
    let lab = Lab::new(&pipeline);
    let said = Fake::with_gpus(2).run(&lab, &["--device", "cuda"]).success();
    assert!(said.stderr.contains("   device cuda: 2 × Made-up GPU (80 GiB)\n"), "{}", said.stderr);
    let noted = noted(&lab);
    let stages: Vec<&str> =
        noted.iter().filter_map(|line| line.strip_suffix(" on 0").or(line.strip_suffix(" on 1"))).collect();
    assert_eq!(stages.len(), 7, "{noted:?}");
    assert!(!stages.iter().any(|stage| stage.starts_with("other")), "{noted:?}");
}
