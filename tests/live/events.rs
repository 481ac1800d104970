//! `--progress json` tells a program the whole run, as docs/progress.md says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::lab::{EXPERIMENT, Lab, Said};

/// Every line of standard error, which is an object with `event` and `at`.
#[track_caller]
fn events(said: &Said) -> Vec<Value> {
    let parsed = |line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
    let events: Vec<Value> = said.stderr.lines().map(parsed).collect();
    assert!(events.iter().all(|event| event["event"].is_string() && event["at"].is_string()), "{events:?}");
    events
}

/// Those of one kind.
fn of<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn keys(event: &Value) -> BTreeSet<String> {
    event.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_whole_run_is_told_and_nothing_else_is_said() {
    let lab = Lab::new(EXPERIMENT);
    let said = lab.run(&["--progress", "json"]).success();
    let events = events(&said);
    assert_eq!(events[0]["event"], "starting");
    assert_eq!(events[1]["event"], "run_started");
    let wanted: Vec<&str> =
        events[1]["stages"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(wanted.len(), 12);
    for stage in wanted {
        let about: Vec<&Value> = events.iter().filter(|event| event["stage"] == stage).collect();
        assert_eq!(about[0]["event"], "stage_started", "{stage}");
        assert_eq!(about[0]["why"], "no earlier result");
        let last = about[about.len() - 1];
        assert_eq!((&last["event"], &last["outcome"]), (&"stage_finished".into(), &"ran".into()));
        assert!(last["seconds"].is_f64() && last["peak_memory"].as_u64() > Some(0), "{last}");
    }
    let is_loss = |event: &&&Value| event["stage"] == "lora" && event["name"] == "loss";
    assert_eq!(of(&events, "metric").iter().filter(is_loss).count(), 20, "one an update");
    let progress = of(&events, "progress");
    let last = progress.iter().rfind(|event| event["stage"] == "lora").unwrap();
    assert_eq!((&last["done"], &last["total"], &last["unit"]), (&20.into(), &20.into(), &"updates".into()));
    let ended = &events[events.len() - 1];
    assert_eq!(
        (&ended["event"], &ended["status"], &ended["ran"]),
        (&"run_ended".into(), &"done".into(), &12.into())
    );

    let again = lab.run(&["--progress", "json"]).success();
    let cached = self::events(&again);
    assert!(of(&cached, "stage_finished").iter().all(|event| event["outcome"] == "cached"), "{cached:?}");
}

/// A run in which everything happens that a run alone can meet.
fn eventful() -> Vec<Value> {
    let lab = Lab::new(
        "stages:
  read: { kind: shell, in: { x: { file: x } }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
  measure:
    kind: shell
    in: { x: read }
    with: { command: 'echo 1 > {out.y}; echo \"{\\\"loss\\\": 0.5}\" > {metrics}', outputs: [y], metrics: m.json }
  reviews: { kind: sample_reviews, with: { train: 20, test: 20 } }
  tokens: { kind: tokenize, in: { reviews: reviews.train } }
  fails: { kind: shell, retry: 1, with: { command: 'echo broken; exit 3 # {out.y}', outputs: [y] } }
",
    );
    lab.write("x", "x");
    events(&lab.run(&["-j", "1", "-k", "--progress", "json"]).ends_with_code(1))
}

/// The first event of this kind that a run says that is held up until then; then it is ended.
fn first(lab: &Lab, kind: &str) -> Value {
    let mut command = lab.command(&["run", "pipelines/p.yaml", "--progress", "json"]);
    let mut pipe = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(pipe.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let event = events.find(|event| event["event"] == kind).unwrap();
    pipe.kill().unwrap();
    pipe.wait().unwrap();
    event
}

/// What is said to those who wait for another `pipe`.
fn held_up() -> Vec<Value> {
    let lab = Lab::new(
        "stages: { slow: { kind: shell, with: { command: 'until test -e go; do sleep 0.01; done; touch {out.y}', outputs: [y] } } }",
    );
    let mut other = lab.start_until(&[], "running slow");
    let waiting = first(&lab, "waiting");
    lab.write("go", "");
    assert!(other.wait().unwrap().success());
    let lock = File::open(lab.path("cache/v1/lock")).unwrap();
    lock.lock().unwrap();
    vec![waiting, first(&lab, "remark")]
}

#[test]
fn every_event_is_documented_with_the_fields_that_it_has() {
    let wrong = Lab::new("stages: { a: { kind: nothing } }");
    let mut met = eventful();
    met.extend(held_up());
    met.extend(events(&wrong.run(&["--progress", "json"]).ends_with_code(2)));
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/progress.md")).unwrap();
    let examples = text.split("```json\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let documented: Vec<Value> = examples
        .map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}")))
        .collect();
    let shapes = |events: &[Value]| {
        let mut shapes: BTreeMap<String, BTreeSet<BTreeSet<String>>> = BTreeMap::new();
        for event in events {
            shapes.entry(event["event"].as_str().unwrap().to_owned()).or_default().insert(keys(event));
        }
        shapes
    };
    assert_eq!(shapes(&met), shapes(&documented));
}

#[test]
fn what_stops_a_run_before_it_begins_is_an_event_too() {
    let lab = Lab::new("stages: { a: { kind: nothing } }");
    let events = events(&lab.run(&["--progress", "json"]).ends_with_code(2));
    let names: Vec<&Value> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["starting", "error"]);
    assert_eq!(events[1]["exit"], 2);
    let text = events[1]["text"].as_str().unwrap();
    assert!(text.contains("p.yaml:1:") && text.contains("nothing"), "{text}");
}
