//! Collecting the cache never breaks a run that is kept, and never touches what was learned.

use crate::lab::{EXPERIMENT, Lab};

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
