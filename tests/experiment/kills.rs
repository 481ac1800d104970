//! `kill -9` of `pipe` or of a worker costs the stage that was running, nothing else.

use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{EXPERIMENT, Lab, send, wait_until};

/// An experiment whose fine-tuning takes long enough to be killed in the middle.
fn slow() -> String {
    let (before, after) = EXPERIMENT.split_once("  fine_tune:\n").unwrap();
    format!("{before}  fine_tune:\n{}", after.replacen("steps: 20,", "steps: 12000,", 1))
}

/// The digest of the fine-tuned model, and of the predictions made with it.
fn results(lab: &Lab) -> (String, String) {
    let digest = |stage: &str| {
        lab.ask(&format!("SELECT digest FROM artifact WHERE stage = '{stage}' ORDER BY run DESC LIMIT 1"))
    };
    (digest("fine_tune"), digest("fine_tuned"))
}

/// The fine-tuning of `lab` has begun to learn.
fn is_training(lab: &Lab) -> bool {
    lab.files("cache/v1/scratch").iter().any(|file| {
        file.ends_with("events.jsonl")
            && std::fs::read_to_string(file).is_ok_and(|events| events.contains("\"loss\""))
    })
}

fn undisturbed() -> (String, String) {
    let lab = Lab::new(&slow());
    lab.run(&["--until", "fine_tuned"]).success();
    results(&lab)
}

#[test]
fn after_a_kill_of_pipe_the_same_command_goes_on_at_once() {
    let lab = Lab::new(&slow());
    lab.run(&["--until", "zero_shot"]).success();
    let mut pipe = lab.start_until(&["--until", "fine_tuned"], "running fine_tune");
    wait_until("training", || is_training(&lab));
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();

    let mut second = lab.start_until(&["--until", "fine_tuned"], "running fine_tune");
    let mut most = 0;
    let status = loop {
        most = most.max(lab.workers().len());
        if let Some(status) = second.try_wait().unwrap() {
            break status;
        }
    };
    assert!(status.success());
    assert_eq!(most, 1, "workers at a time");
    let cached =
        "SELECT group_concat(stage, ' ') FROM (SELECT stage FROM stage WHERE run = 3 AND outcome = 'cached'
                  ORDER BY stage)";
    assert_eq!(lab.ask::<String>(cached), "gpt2 reviews tokens_test tokens_train trunk_test trunk_train");
    assert_eq!(results(&lab), undisturbed());
    assert_eq!(std::fs::read_dir(lab.path("cache/v1/scratch")).unwrap().count(), 0);
    assert!(lab.pipe(&["runs"]).success().stdout.contains("killed"));
}

#[test]
fn after_a_kill_of_a_worker_the_run_says_so_and_the_next_one_ends_right() {
    let lab = Lab::new(&slow());
    let pipe = lab.start_until(&["--until", "fine_tuned"], "running fine_tune");
    wait_until("training", || is_training(&lab));
    lab.workers().into_iter().for_each(|worker| send(Signal::KILL, worker));
    let status = pipe.wait_with_output().unwrap().status;
    assert_eq!(status.code(), Some(1));
    let error: String = lab.ask("SELECT error FROM stage WHERE stage = 'fine_tune'");
    assert!(error.contains("signal 9 (killed"), "{error}");

    let again = lab.run(&["--until", "fine_tuned"]).success();
    assert_eq!(again.stages("done"), ["fine_tune", "fine_tuned"]);
    assert_eq!(results(&lab), undisturbed());
}

/// Prompts that take some tenths of a second to encode and to score.
const MANY_PROMPTS: &str = "seed: 1
stages:
  reviews: { kind: sample_reviews, with: { train: 2, test: 3000, max_sentences: 12 } }
  tokens: { kind: tokenize, in: { reviews: reviews.test } }
  gpt2: { kind: gpt2, with: { init: random, n_layer: 3, n_head: 4, n_embd: 192, block_size: 256 } }
  trunk: { kind: encode, in: { tokens: tokens, weights: gpt2 }, with: { blocks: 1 } }
  zero_shot: { kind: zero_shot, in: { hidden: trunk, weights: gpt2 } }
";

/// Lets the workers run for moments until one has kept where it is: a checkpoint is due a second after the last,
/// and a fast machine would be done by then.
fn run_slowly_until_a_checkpoint(lab: &Lab) {
    let send_all = |signal| lab.workers().into_iter().for_each(|worker| send(signal, worker));
    wait_until("a checkpoint", || {
        std::thread::sleep(Duration::from_millis(20));
        send_all(Signal::STOP);
        let is_kept = lab.files("cache/v1/scratch").iter().any(|file| file.ends_with("checkpoint/progress"));
        if !is_kept {
            std::thread::sleep(Duration::from_secs(1));
        }
        send_all(Signal::CONT);
        is_kept
    });
}

#[test]
fn encode_and_zero_shot_go_on_from_their_checkpoints_after_kills() {
    let results = |lab: &Lab| -> String {
        lab.ask(
            "SELECT group_concat(stage || ' ' || digest) FROM (SELECT stage, digest FROM artifact
             WHERE run = (SELECT max(run) FROM artifact) AND stage IN ('trunk', 'zero_shot') ORDER BY stage)",
        )
    };
    let lab = Lab::new(MANY_PROMPTS);
    let mut pipe = lab.start_until(&[], "running trunk");
    run_slowly_until_a_checkpoint(&lab);
    send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
    pipe.wait().unwrap();

    let mut pipe = lab.start_until(&[], "running zero_shot");
    run_slowly_until_a_checkpoint(&lab);
    lab.workers().into_iter().for_each(|worker| send(Signal::KILL, worker));
    assert_eq!(pipe.wait().unwrap().code(), Some(1));
    let log = lab.pipe(&["logs", "@last", "trunk"]).success().stdout;
    assert!(log.contains("goes on after review "), "{log}");

    lab.run(&[]).success();
    let log = lab.pipe(&["logs", "@last", "zero_shot"]).success().stdout;
    assert!(log.contains("goes on after review "), "{log}");

    let undisturbed = Lab::new(MANY_PROMPTS);
    undisturbed.run(&[]).success();
    assert_eq!(results(&lab), results(&undisturbed));
}

#[test]
fn ctrl_c_stops_the_workers_and_records_the_run_as_interrupted() {
    let lab = Lab::new(&slow());
    let mut pipe = lab.start_until(&["--until", "fine_tuned"], "running fine_tune");
    wait_until("training", || is_training(&lab));
    send(Signal::INT, i32::try_from(pipe.id()).unwrap());
    assert_eq!(pipe.wait().unwrap().code(), Some(130));
    assert_eq!(lab.workers(), []);
    assert_eq!(lab.ask::<String>("SELECT status FROM run"), "interrupted");
    assert_eq!(lab.ask::<String>("SELECT outcome FROM stage WHERE stage = 'fine_tune'"), "interrupted");
    lab.run(&["--until", "fine_tuned"]).success();
    assert_eq!(results(&lab), undisturbed());
}

#[test]
fn two_runs_at_once_compute_a_stage_once() {
    let lab = Lab::new(&slow());
    lab.run(&["--until", "trunk_train"]).success();
    let mut first = lab.start_until(&["--until", "fine_tune"], "running fine_tune");
    let second = lab.run(&["--until", "fine_tune"]).success();
    assert!(first.wait().unwrap().success());
    assert!(
        second.stages("waiting") == ["fine_tune"] && second.stderr.contains("for run_2"),
        "{}",
        second.stderr
    );
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM execution WHERE kind = 'fine_tune'"), 1);
}
