//! Change one thing, and exactly what depends on it runs.

use crate::lab::{EXPERIMENT, Lab};

#[test]
fn one_changed_number_reruns_what_depends_on_it_and_going_back_runs_nothing() {
    let lab = Lab::new(EXPERIMENT);
    let first = lab.run(&[]).success();
    assert_eq!(first.stages("done").len(), 12);
    assert!(first.stdout.contains("| fine_tuned"), "the tables are printed: {}", first.stdout);

    for _ in 0..2 {
        let again = lab.run(&[]).success();
        assert!(again.stderr.contains("nothing to do, 12 cached"), "{}", again.stderr);
        assert_eq!(again.stdout, first.stdout);
    }

    let changed = lab.run(&["--set", "lora.rank=16"]).success();
    assert_eq!(changed.stages("done"), ["eval", "lora", "lora_tuned"]);
    assert!(changed.stderr.contains("with.rank: 8 → 16 (--set lora.rank=16)"), "{}", changed.stderr);

    let back = lab.run(&[]).success();
    assert_eq!(back.stages("cached").len(), 12);

    lab.edit("lora_tuned", "low_rank");
    assert!(lab.run(&[]).success().stderr.contains("nothing to do"), "renaming a stage reruns nothing");
    assert_eq!(lab.ask::<i64>("SELECT max(id) FROM run"), 6, "every run has a number");
}

#[test]
fn compare_shows_what_differed_and_the_metrics_side_by_side() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    lab.run(&["--set", "lora.rank=16", "--until", "lora"]).success();
    let compared = lab.pipe(&["compare", "run_1", "@last"]).success().stdout;
    let line = |start: &str| {
        let line = compared.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no line `{start}` in\n{compared}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("lora.rank"), ["lora.rank", "8", "16"]);
    // q and v of one block of width 16: 8 · 2 · 2 · 16, and a head of 17.
    assert_eq!(line("lora.trainable_parameters"), ["lora.trainable_parameters", "529", "1041", "+512"]);
}

#[test]
fn an_edited_local_file_reruns_what_reads_it() {
    let lab = Lab::new("stages: { tokens: { kind: tokenize, in: { reviews: { file: mine.jsonl } } } }");
    let review = |text: &str| format!(r#"{{"id":"a/1","label":1,"text":"{text}"}}"#) + "\n";
    lab.write("mine.jsonl", review("good"));
    lab.run(&[]).success();
    lab.write("mine.jsonl", review("good"));
    assert!(lab.run(&[]).success().stderr.contains("nothing to do"), "the same bytes are no change");
    lab.write("mine.jsonl", review("fine"));
    let edited = lab.run(&[]).success();
    assert!(edited.stderr.contains("in.reviews"), "{}", edited.stderr);
    assert_eq!(edited.stages("done"), ["tokens"]);
}

#[test]
fn a_dry_run_says_run_or_cached_and_why_and_is_not_recorded() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "tokens_test"]).success();
    let plan = lab.run(&["-n", "--set", "tokens_test.max_tokens=128"]).success().stdout;
    let line = |stage: &str| plan.lines().find(|line| line.split_whitespace().nth(1) == Some(stage)).unwrap();
    assert!(line("reviews").starts_with("cached"));
    assert!(line("tokens_test").starts_with("run"), "{plan}");
    assert!(
        line("tokens_test")
            .ends_with("with.max_tokens: 256 → 128 (--set tokens_test.max_tokens=128), since run_1"),
        "{plan}"
    );
    assert!(line("eval").starts_with("run"));
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 1);
}

#[test]
fn why_explains_a_stage_that_runs_and_one_that_does_not() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "tokens_test"]).success();
    let why = |stage: &str| lab.pipe(&["why", "pipelines/p.yaml", stage]).success().stdout;
    let told = why("tokens_test");
    assert!(
        told.starts_with("tokens_test: cached\n  has the result of run_1\n  computed just now in "),
        "{told}"
    );
    lab.edit("{ reviews: reviews.test } }", "{ reviews: reviews.test }, with: { keep: first } }");
    insta::assert_snapshot!(why("tokens_test"), @r"
    tokens_test: will run
      with.keep: last → first (pipelines/p.yaml:6:73)
      since run_1
    ");
}

#[test]
fn a_forced_stage_runs_again_and_gives_the_same_bytes() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    let forced = lab.run(&["--force=fine_tune", "-j", "1"]).success();
    assert_eq!(forced.stages("done"), ["fine_tune"], "with one thread the bytes are those of two");
    assert!(!forced.stderr.contains("not deterministic"), "{}", forced.stderr);
}

#[test]
fn a_cache_that_is_deleted_is_computed_again_and_what_was_learned_stays() {
    let lab = Lab::new(EXPERIMENT);
    let first = lab.run(&["--until", "zero_shot"]).success();
    std::fs::remove_dir_all(lab.path("cache")).unwrap();
    assert!(lab.pipe(&["show", "run_1"]).success().stdout.contains("predicted_positive"));
    let again = lab.run(&["--until", "zero_shot"]).success();
    assert_eq!(again.stages("done"), first.stages("done"));
    let digests = "SELECT count(DISTINCT digest) FROM artifact WHERE port = 'predictions'";
    assert_eq!(lab.ask::<i64>(digests), 1, "the same predictions, bit for bit");
}

#[test]
fn metrics_of_every_step_are_in_the_database() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&["--until", "fine_tune"]).success();
    for name in ["loss", "learning_rate", "gradient_norm"] {
        let question =
            format!("SELECT count(*) FROM metric WHERE metric = 'fine_tune.{name}' AND step IS NOT NULL");
        assert_eq!(lab.ask::<i64>(&question), 20, "{name}");
    }
}
