//! Collecting the cache never breaks a run that is kept, and never touches what was learned.

use std::{fs, fs::File};

use rustix::process::Signal;

use crate::lab::{EXPERIMENT, Lab, send, wait_until};

#[test]
fn what_kept_runs_need_stays_and_the_rest_is_computed_again() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "lora_tuned"]).success();
    lab.pipe(&["tag", "@last", "first"]).success();
    lab.run(&["--until", "lora_tuned", "--set", "lora.rank=16"]).success();
    lab.run(&["--until", "lora_tuned", "--set", "lora.rank=4"]).success();

    let before = lab.files("cache/v1/objects").len();
    let dry = lab.pipe(&["gc", "--keep", "1", "-n"]).success().stdout;
    assert!(dry.starts_with("would remove 2 results, "), "the two of rank 16: {dry}");
    assert_eq!(lab.files("cache/v1/objects").len(), before);

    let real = lab.pipe(&["gc", "--keep", "1"]).success().stdout;
    assert_eq!(real, dry.replace("would remove", "removed"));
    assert_eq!(lab.files("cache/v1/objects").len(), before - 2);
    assert!(
        lab.run(&["--until", "lora_tuned"]).success().stderr.contains("nothing to do"),
        "a tagged run is kept"
    );
    assert!(
        lab.run(&["--until", "lora_tuned", "--set", "lora.rank=4"])
            .success()
            .stderr
            .contains("nothing to do")
    );

    let compared = lab.pipe(&["compare", "first", "run_2"]).success().stdout;
    assert!(compared.contains("lora.trainable_parameters"), "what was learned stays: {compared}");
    let again = lab.run(&["--until", "lora_tuned", "--set", "lora.rank=16"]).success();
    assert_eq!(again.stages("done"), ["lora", "lora_tuned"]);
}

#[test]
fn a_budget_that_kept_runs_exceed_is_said_to_be_exceeded() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "tokens_test"]).success();
    let said = lab.pipe(&["gc", "--max-size", "1kB"]).success();
    assert!(said.stdout.starts_with("removed 0 results"), "{}", said.stdout);
    assert!(said.stderr.contains("need more than --max-size"), "{}", said.stderr);
}

/// A stage that leaves a checkpoint and then waits, unless it finds that checkpoint.
const RESUMES: &str = "stages:
  before: { kind: shell, with: { command: 'echo 1 > {out.x}', outputs: [x] } }
  long:
    kind: shell
    in: { x: before }
    with:
      command: 'if test -e {checkpoint}/half; then echo resumed > {out.x}; else
        echo half > {checkpoint}/half; echo much > {out.x}; touch begun; exec sleep 60; fi'
      outputs: [x]
";

#[test]
fn what_a_killed_run_left_goes_but_for_a_checkpoint_that_a_kept_run_can_go_on_from() {
    for keep in ["1", "0"] {
        let lab = Lab::new(RESUMES);
        let mut pipe = lab.start_until(&[], "running long");
        wait_until("the stage", || lab.path("begun").exists());
        let begun = "SELECT count(*) FROM execution WHERE stage = 'long'";
        wait_until("the record that it began", || lab.ask::<i64>(begun) == 1);
        send(Signal::KILL, i32::try_from(pipe.id()).unwrap());
        pipe.wait().unwrap();
        lab.write("cache/v1/results/00.tmp", "half a result");
        let left =
            |name: &str| lab.files("cache/v1/scratch").iter().filter(|file| file.ends_with(name)).count();
        assert_eq!((left("half"), left("out/x")), (1, 1));

        wait_until("the end of the command", || {
            lab.pipe(&["gc", "--keep", keep, "-n"]).success().stdout.contains("would remove 2 leftovers")
        });
        assert_eq!((left("half"), left("out/x")), (1, 1), "a dry run removes nothing");
        let said = lab.pipe(&["gc", "--keep", keep]).success().stdout;
        assert!(said.contains("removed 2 leftovers of killed runs"), "{said}");
        assert_eq!((left("half"), left("out/x")), (usize::from(keep == "1"), 0), "--keep {keep}");
        assert!(!lab.path("cache/v1/results/00.tmp").exists());
        assert!(!lab.pipe(&["gc", "--keep", keep]).success().stdout.contains("leftover"));
        if keep == "1" {
            assert_eq!(lab.run(&[]).success().stages("done"), ["long"], "the result of `before` was kept");
            let results = lab.files("cache/v1/objects");
            assert!(results.iter().any(|file| fs::read(file).unwrap() == b"resumed\n"));
        }
    }
}

#[test]
fn nothing_is_removed_beside_a_run_and_a_run_waits_for_a_removal_to_end() {
    let lab = Lab::new(RESUMES);
    let mut pipe = lab.start_until(&[], "running long");
    wait_until("the stage", || lab.path("begun").exists());
    let said = lab.pipe(&["gc", "--keep", "0"]).ends_with_code(1);
    assert!(said.stderr.contains("run_1 is running and may need"), "{}", said.stderr);
    lab.pipe(&["gc", "--keep", "0", "-n"]).success();
    assert!(!lab.files("cache/v1/objects").is_empty());
    send(Signal::INT, i32::try_from(pipe.id()).unwrap());
    assert_eq!(pipe.wait().unwrap().code(), Some(130));

    let alone = File::options().write(true).open(lab.path("cache/v1/lock")).unwrap();
    alone.lock().unwrap();
    let mut pipe = lab.start_until(&[], "waiting until another `pipe`");
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1, "it has not begun");
    alone.unlock().unwrap();
    assert!(pipe.wait().unwrap().success());
}
