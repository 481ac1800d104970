//! The names that people give to runs.

use pipe::{
    names::RunId,
    runs::{RunsDb, RunsError},
};
use serde_json::json;

use crate::lab::{Lab, noon, stage};

fn help(db: &RunsDb, name: &str) -> String {
    match db.find(name).unwrap_err() {
        RunsError::UnknownRun { help, .. } => help,
        other => panic!("{other}"),
    }
}

#[test]
fn a_run_has_many_names() {
    let mut lab = Lab::new();
    assert_eq!(help(&lab.db, "@last"), "no run is recorded yet; start with `pipe run FILE`");
    for rank in 1..=3 {
        lab.run(&[stage("train", "sgd", json!({ "rank": rank }))]);
    }
    assert_eq!(lab.db.tag(RunId(2), "baseline", noon()).unwrap(), None);
    for (name, run) in
        [("run_1", 1), ("2", 2), ("run_03", 3), ("@last", 3), ("@last~0", 3), ("@last~2", 1), ("baseline", 2)]
    {
        assert_eq!(lab.db.find(name).unwrap(), RunId(run), "{name}");
    }
    let latest = "the latest are run_3, run_2, run_1; write `run_12`, `12`, `@last`, `@last~1` or a tag";
    for name in ["run_4", "0", "-1", "@last~3", "@last~-1", "@first", "", "run_"] {
        assert_eq!(help(&lab.db, name), latest, "{name}");
    }
    assert_eq!(help(&lab.db, "basline"), "did you mean the tag `baseline`?");
}

#[test]
fn a_tag_names_one_run_and_can_be_moved_and_removed() {
    let mut lab = Lab::new();
    lab.run(&[]);
    lab.run(&[]);
    lab.db.tag(RunId(1), "best", noon()).unwrap();
    assert_eq!(lab.db.tag(RunId(2), "best", noon()).unwrap(), Some(RunId(1)));
    assert_eq!(lab.db.tag(RunId(2), "best", noon()).unwrap(), None);
    assert_eq!(lab.db.find("best").unwrap(), RunId(2));
    assert!(matches!(lab.db.remove_tag(RunId(1), "best"), Err(RunsError::NoSuchTag { .. })));
    lab.db.remove_tag(RunId(2), "best").unwrap();
    assert!(lab.db.find("best").is_err());
}

#[test]
fn a_tag_is_never_like_another_name_of_a_run() {
    let mut lab = Lab::new();
    let run = lab.run(&[]);
    for name in ["12", "run_12", "run_", "@last", "@x", "", "a b", "-x", "a\nb", &"x".repeat(65)] {
        assert!(matches!(lab.db.tag(run, name, noon()), Err(RunsError::BadTag { .. })), "{name:?}");
    }
    for name in ["v1", "run_of_march", "paper/table-1", "größe"] {
        lab.db.tag(run, name, noon()).unwrap();
        assert_eq!(lab.db.find(name).unwrap(), run);
    }
}

#[test]
fn notes_are_kept_in_order() {
    let mut lab = Lab::new();
    let run = lab.run(&[]);
    lab.db.note(run, "first", noon()).unwrap();
    lab.db.note(run, "second", noon()).unwrap();
    let notes = lab.db.run(run).unwrap().notes;
    assert_eq!(notes.iter().map(|note| note.text.as_str()).collect::<Vec<_>>(), ["first", "second"]);
}
