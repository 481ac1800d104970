//! What runs and what does not: the engine over toy kinds, in this process.

mod edits;
mod outside;
mod toys;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::Path,
};

use pipe::{
    cache::Cache,
    engine::{
        self, Begun, Capacity, Earlier, Explainer, Force, Planned, Request, RunEvent, Selection, Tools,
        Verdict,
    },
    exec::{InlineExecutor, Stop},
    fingerprint::Fingerprint,
    names::RunId,
    pipeline::{self, LoadOptions, StageSpec},
    record::{Outcome, RunStatus, StageRecord},
};
use pipe_stages::contract::{Device, StageKind};
use tempfile::TempDir;

const PIPELINE: &str = "
name: toys
seed: 7
stages:
  greeting: { kind: write, with: { text: hello world } }
  subject: { kind: write, with: { text: you there } }
  first: { kind: first_word, in: { text: greeting } }
  number: { kind: draw }
  all: { kind: join, in: { a: first, b: subject, c: number }, with: { separator: ' ' } }
";

/// A project in a folder of its own, run again and again.
struct Lab {
    folder: TempDir,
    text: RefCell<String>,
    runs: RefCell<i64>,
    earlier: RefCell<BTreeMap<String, Earlier>>,
    kinds: Cell<&'static [StageKind]>,
}

#[derive(Default)]
struct Options<'a> {
    only: &'a [&'a str],
    from: &'a [&'a str],
    until: &'a [&'a str],
    keep_going: bool,
    force: Force,
    sets: &'a [&'a str],
    cpus: Option<usize>,
}

struct Ran {
    status: RunStatus,
    records: BTreeMap<String, StageRecord>,
    differs: Vec<String>,
    started: usize,
}

impl Ran {
    /// The stages of one outcome, in order of their names.
    fn stages(&self, outcome: Outcome) -> Vec<&str> {
        let records = self.records.values().filter(|record| record.outcome == outcome);
        records.map(|record| record.stage.as_str()).collect()
    }
}

impl Lab {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pipelines")).unwrap();
        Self {
            folder,
            text: RefCell::new(text.to_owned()),
            runs: RefCell::new(0),
            earlier: RefCell::default(),
            kinds: Cell::new(toys::KINDS),
        }
    }

    fn edit(&self, from: &str, to: &str) {
        let mut text = self.text.borrow_mut();
        assert!(text.contains(from), "`{from}` is not in the pipeline");
        *text = text.replace(from, to);
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn with<T>(
        &self,
        options: &Options<'_>,
        task: impl FnOnce(&Request<'_>, &Tools<'_>, &Explainer<'_>) -> T,
    ) -> T {
        let file = self.path("pipelines/toys.yaml");
        fs::write(&file, &*self.text.borrow()).unwrap();
        let sets = options.sets.iter().map(ToString::to_string).collect();
        let options_to_load = LoadOptions { file, sets, ..LoadOptions::default() };
        let pipeline =
            pipeline::load(&options_to_load, self.kinds.get()).unwrap_or_else(|err| panic!("{err:?}"));
        let cache = Cache::open(&self.path("cache"));
        let executor = InlineExecutor::new(self.kinds.get());
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let selection =
            Selection { only: owned(options.only), from: owned(options.from), until: owned(options.until) };
        let request = Request {
            pipeline: &pipeline,
            selected: selection.of(&pipeline).unwrap(),
            keep_going: options.keep_going,
            force: options.force.clone(),
            capacity: Capacity {
                device: Device::Cpu,
                cpus: options.cpus.unwrap_or(4),
                memory: 1 << 30,
                gpus: 0,
            },
            gpus: Vec::new(),
        };
        let stop = Stop::default();
        let tools = Tools { cache: &cache, executor: &executor, stop: &stop, root: self.folder.path() };
        let previous = |stage: &StageSpec| self.earlier.borrow().get(&stage.name).cloned();
        task(&request, &tools, &Explainer { previous: &previous, computed_in: &|_, hit| hit.run })
    }

    fn run(&self) -> Ran {
        self.run_with(&Options::default())
    }

    fn run_with(&self, options: &Options<'_>) -> Ran {
        let ran = self.with(options, |request, tools, explainer| {
            let (mut records, mut changed, mut started) = (BTreeMap::new(), Vec::new(), 0);
            let begun = Begun { run: RunId(*self.runs.borrow() + 1), at: jiff::Timestamp::now() };
            let summary = engine::run(request, begun, tools, explainer, &mut |event| match event {
                RunEvent::Started { .. } => started += 1,
                RunEvent::Finished { record, differs, .. } => {
                    changed.extend(differs);
                    records.insert(record.stage.clone(), *record);
                }
                _ => {}
            });
            for record in records.values() {
                if let Some(execution) = record.key.and_then(|key| tools.cache.execution(key)) {
                    let fingerprint = Fingerprint::parse(&execution.hashed).unwrap();
                    let earlier = Earlier { run: begun.run, fingerprint };
                    self.earlier.borrow_mut().insert(record.stage.clone(), earlier);
                }
            }
            Ran { status: summary.unwrap().status, records, differs: changed, started }
        });
        *self.runs.borrow_mut() += 1;
        ran
    }

    fn planned(&self, options: &Options<'_>) -> Vec<Planned> {
        self.with(options, |request, tools, explainer| engine::plan(request, tools, explainer).unwrap())
    }

    /// A line a stage, as `pipe run -n` would say it.
    fn plan(&self, options: &Options<'_>) -> Vec<String> {
        let line = |plan: Planned| match plan.verdict {
            Verdict::Run => format!("{}: run {:?}", plan.stage, plan.reasons),
            Verdict::Cached(run) => format!("{}: cached {}", plan.stage, run.unwrap()),
            Verdict::Skip => format!("{}: skip {:?}", plan.stage, plan.reasons),
        };
        self.planned(options).into_iter().map(line).collect()
    }

    fn output(&self, record: &StageRecord) -> String {
        let cache = Cache::open(&self.path("cache"));
        let execution = cache.execution(record.key.unwrap()).unwrap();
        fs::read_to_string(cache.object(execution.outputs[0].digest)).unwrap()
    }

    /// Every file below a folder of the cache.
    fn cache_files(&self, part: &str) -> Vec<std::path::PathBuf> {
        let files =
            walkdir::WalkDir::new(self.path("cache/v1").join(part)).into_iter().filter_map(Result::ok);
        files.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    }
}

fn make_writable(path: &Path) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a file of this test alone")]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
}

#[test]
fn the_first_run_runs_everything_and_the_second_nothing() {
    let lab = Lab::new(PIPELINE);
    let first = lab.run();
    assert_eq!(first.stages(Outcome::Ran), ["all", "first", "greeting", "number", "subject"]);
    assert_eq!(lab.output(&first.records["all"]), "hello you there 7");
    let second = lab.run();
    assert_eq!((second.status, second.started), (RunStatus::Done, 0));
    assert_eq!(second.stages(Outcome::Cached).len(), 5);
    assert_eq!(second.records["all"].execution, first.records["all"].execution);
}

#[test]
fn a_changed_parameter_reruns_only_what_depends_on_it() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    lab.edit("you there", "world");
    let ran = lab.run();
    assert_eq!(ran.stages(Outcome::Ran), ["all", "subject"]);
    assert_eq!(lab.output(&ran.records["all"]), "hello world 7");
}

#[test]
fn a_stage_that_writes_the_same_bytes_stops_the_change_there() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    lab.edit("hello world", "hello moon");
    let ran = lab.run();
    assert_eq!(ran.stages(Outcome::Ran), ["first", "greeting"]);
    let reasons = format!("{:?}", ran.records["all"].reasons);
    assert_eq!(
        reasons,
        r#"[SameBytes { stages: ["first"] }, Satisfied { since: Some(RunId(1)), device: None }]"#
    );
}

#[test]
fn going_back_to_an_earlier_value_runs_nothing() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    lab.edit("you there", "world");
    lab.run();
    lab.edit("text: world", "text: you there");
    assert_eq!(lab.run().started, 0);
}

#[test]
fn renaming_a_stage_and_reordering_keys_runs_nothing() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    lab.edit("first", "opening");
    lab.edit("kind: opening_word, in: { text: greeting }", "in: { text: greeting }, kind: first_word");
    lab.edit("seed: 7", "# a comment\nseed: 7");
    let ran = lab.run();
    assert_eq!(ran.started, 0);
    assert!(ran.records.contains_key("opening"));
}

#[test]
fn another_seed_reruns_only_what_draws() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    let ran = lab.run_with(&Options { sets: &["seed=8"], ..Options::default() });
    assert_eq!(ran.stages(Outcome::Ran), ["all", "number"]);
    assert_eq!(lab.output(&ran.records["all"]), "hello you there 8");
}

#[test]
fn an_edited_outside_file_reruns_what_reads_it_and_a_touched_one_does_not() {
    let lab = Lab::new("stages: { first: { kind: first_word, in: { text: { file: words.txt } } } }");
    fs::write(lab.path("words.txt"), "one two").unwrap();
    lab.run();
    fs::write(lab.path("words.txt"), "one two").unwrap();
    assert_eq!(lab.run().started, 0);
    fs::write(lab.path("words.txt"), "two one").unwrap();
    let ran = lab.run();
    assert_eq!(lab.output(&ran.records["first"]), "two");
}

#[test]
fn until_runs_a_stage_with_what_it_needs() {
    let lab = Lab::new(PIPELINE);
    let ran = lab.run_with(&Options { until: &["first"], ..Options::default() });
    assert_eq!(ran.records.keys().collect::<Vec<_>>(), ["first", "greeting"]);
}

#[test]
fn a_forced_stage_runs_again_and_says_when_it_gives_other_bytes() {
    let lab = Lab::new("stages: { mood: { kind: moody }, same: { kind: write, with: { text: x } } }");
    lab.run();
    let ran = lab.run_with(&Options { force: Force::All, ..Options::default() });
    assert_eq!(ran.stages(Outcome::Ran), ["mood", "same"]);
    assert_eq!(ran.differs, ["text"]);
}

#[test]
fn stages_of_equal_keys_are_executed_once() {
    let lab =
        Lab::new("stages: { a: { kind: moody }, b: { kind: moody }, c: { kind: join, in: { a: a, b: b } } }");
    let ran = lab.run();
    assert_eq!(ran.started, 2, "one of the twins, and the join");
    assert_eq!(ran.records["a"].execution, ran.records["b"].execution);
}

#[test]
fn a_failure_keeps_what_is_done_and_skips_what_needs_it() {
    let lab = Lab::new(
        "stages: { good: { kind: write, with: { text: x } }, bad: { kind: fail }, after: { kind: first_word, in: { text: bad } } }",
    );
    let ran = lab.run();
    assert_eq!(ran.status, RunStatus::Failed);
    assert_eq!(ran.stages(Outcome::Skipped), ["after"]);
    assert_eq!(ran.records["bad"].error.as_deref(), Some("the toy is broken\nhelp: buy another"));
    let again = lab.run();
    assert_eq!(again.stages(Outcome::Cached), ["good"]);
}

#[test]
fn a_stage_is_said_to_be_blocked_only_by_one_that_it_needs() {
    let lab = Lab::new(
        "stages: { bad: { kind: fail }, after: { kind: first_word, in: { text: bad } }, last: { kind: first_word, in: { text: after } },
          slow: { kind: join, in: { text: mood } }, mood: { kind: moody } }",
    );
    let ran = lab.run_with(&Options { cpus: Some(1), ..Options::default() });
    let reasons = |stage: &str| format!("{:?}", ran.records[stage].reasons);
    assert_eq!(reasons("after"), r#"[Blocked { by: "bad" }]"#);
    assert_eq!(reasons("last"), r#"[Blocked { by: "bad" }]"#);
    assert_eq!(reasons("mood"), r#"[NotStarted { failed: "bad" }]"#);
    assert_eq!(reasons("slow"), r#"[NotStarted { failed: "bad" }]"#);
}

#[test]
fn a_stage_that_panics_fails_and_the_run_ends() {
    let lab = Lab::new("stages: { bug: { kind: panic }, other: { kind: write, with: { text: x } } }");
    let ran = lab.run();
    assert_eq!(ran.status, RunStatus::Failed);
    assert!(ran.records["bug"].error.as_deref().unwrap().contains("this is a bug"));
}

#[test]
fn a_damaged_or_missing_object_is_computed_again_never_used() {
    for damage in ["remove", "flip", "cut"] {
        let lab = Lab::new(
            "stages: { a: { kind: write, with: { text: abc } }, b: { kind: first_word, in: { text: a } } }",
        );
        lab.run();
        // Both stages wrote the same bytes: there is one object.
        let [object] = &lab.cache_files("objects")[..] else { panic!("one object") };
        make_writable(object);
        match damage {
            "remove" => fs::remove_file(object).unwrap(),
            "flip" => fs::write(object, "abd").unwrap(),
            _ => fs::write(object, "ab").unwrap(),
        }
        let ran = lab.run();
        assert_eq!(ran.stages(Outcome::Ran), ["a"], "{damage}: the first restores what both need");
        assert_eq!(lab.output(&ran.records["b"]), "abc");
    }
}

#[test]
fn the_index_is_made_anew_when_it_is_missing_or_damaged() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    let index = lab.path("cache/v1/index.db");
    for content in [None, Some("this is no database"), Some("")] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(lab.path(&format!("cache/v1/index.db{suffix}")));
        }
        if let Some(content) = content {
            fs::write(&index, content).unwrap();
        }
        assert_eq!(lab.run().started, 0, "{content:?}");
    }
}

#[test]
fn a_damaged_result_record_is_a_miss() {
    let lab = Lab::new("stages: { a: { kind: write, with: { text: abc } } }");
    lab.run();
    let results = lab.cache_files("results");
    fs::write(&results[0], "{").unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(lab.path(&format!("cache/v1/index.db{suffix}")));
    }
    assert_eq!(lab.run().stages(Outcome::Ran), ["a"]);
}

#[test]
fn repair_spares_what_was_computed_again_since_the_damage_was_found() {
    let lab = Lab::new("stages: { a: { kind: write, with: { text: abc } }, m: { kind: moody } }");
    let first = lab.run();
    let cache = Cache::open(&lab.path("cache"));
    let result = lab.cache_files("results").into_iter().find(|file| {
        file.file_stem().unwrap().to_str().unwrap() == first.records["a"].key.unwrap().to_string()
    });
    fs::write(result.unwrap(), "{").unwrap();
    let moody = cache.execution(first.records["m"].key.unwrap()).unwrap();
    fs::remove_file(cache.object(moody.outputs[0].digest)).unwrap();
    let audit = cache.audit();
    assert_eq!((audit.unreadable.len(), audit.flawed.len()), (1, 1));
    // Without an index, which still knows the first result.
    drop(cache);
    fs::remove_file(lab.path("cache/v1/index.db")).unwrap();
    assert_eq!(lab.run().stages(Outcome::Ran), ["a", "m"]);
    Cache::open(&lab.path("cache")).repair(&audit).unwrap();
    fs::remove_file(lab.path("cache/v1/index.db")).unwrap();
    assert_eq!(lab.run().started, 0);
}

#[test]
fn scratch_is_empty_after_a_run() {
    let lab = Lab::new(PIPELINE);
    lab.run();
    assert_eq!(fs::read_dir(lab.path("cache/v1/scratch")).unwrap().count(), 0);
}

#[test]
fn the_plan_says_for_every_stage_whether_it_runs_and_why() {
    let lab = Lab::new(PIPELINE);
    assert!(lab.plan(&Options::default()).iter().all(|line| line.contains("NeverRun")));
    lab.run();
    assert!(lab.plan(&Options::default()).iter().all(|line| line.ends_with("cached run_1")));
    let plan = lab.plan(&Options { sets: &["subject.text=me"], ..Options::default() }).join("\n");
    insta::assert_snapshot!(plan, @r#"
    greeting: cached run_1
    subject: run [Parameter { path: "text", old: Some(String("you there")), new: Some(String("me")), place: Some(Place { source: "--set subject.text=me", line: 0, column: 0, variables: [] }), since: Some(RunId(1)) }]
    first: cached run_1
    number: cached run_1
    all: run [Upstream { stages: ["subject"] }]
    "#);
}
