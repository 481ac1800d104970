//! Random edits of random pipelines: exactly the right stages run, and the reasons given before the run
//! name exactly the edit.
//!
//! A model of a few lines says what must happen. It knows no digests and no cache: it remembers, for each
//! stage, the values that decide its bytes, and which such values were ever computed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
};

use pipe::{
    engine::Verdict,
    record::{Outcome, Reason},
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{Lab, Options, toys};

/// How many projects are edited, each this often. `PROPTEST_CASES` changes the number of projects.
const PROJECTS: u32 = 14;
const EDITS: usize = 25;

/// What a stage does, as the file says it.
#[derive(Debug, Clone, PartialEq)]
enum Work {
    /// Writes a text.
    Write { text: String },
    /// Writes its seed; the pipeline's if it has none of its own.
    Draw { seed: Option<u64> },
    /// Keeps the first word of another stage, so that a change may stop there.
    FirstWord { of: usize },
    /// Joins stages.
    Join { of: Vec<usize>, separator: String },
    /// Lists the names and contents of the files in the folder or pattern.
    List { what: Files },
    /// Joins a file.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Files {
    Folder,
    Pattern,
}

#[derive(Debug, Clone)]
struct Stage {
    name: String,
    work: Work,
}

/// One project as the test knows it.
#[derive(Debug, Clone)]
struct Project {
    stages: Vec<Stage>,
    seed: u64,
    /// Files of `data` by name, and the one file `note.txt` under an empty name.
    files: BTreeMap<String, String>,
    /// Version of the kind that writes.
    version: u32,
    /// How often keys were turned around and comments added.
    style: usize,
}

/// The values that decide what a stage writes.
type Deciding = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edit {
    Parameter,
    OwnSeed,
    PipelineSeed,
    FileContents,
    AddFile,
    RemoveFile,
    RenameFile,
    Touch,
    OneFile,
    KeyOrder,
    Comment,
    RenameStage,
    KindVersion,
    SwitchBack,
}

use Edit::*;

const ALL: [Edit; 14] = [
    Parameter,
    OwnSeed,
    PipelineSeed,
    FileContents,
    AddFile,
    RemoveFile,
    RenameFile,
    Touch,
    OneFile,
    KeyOrder,
    Comment,
    RenameStage,
    KindVersion,
    SwitchBack,
];

impl Project {
    /// A project of `size` stages, each of which takes from stages before it.
    fn new(size: usize, dice: &mut Dice) -> Self {
        let stages = (0..size).map(|at| Stage {
            name: format!("s{at}"),
            work: match dice.roll(7) {
                0 => Work::Write { text: dice.words() },
                1 => Work::Draw { seed: None },
                2 => Work::List { what: Files::Folder },
                3 => Work::List { what: Files::Pattern },
                4 => Work::Copy,
                5 if at > 0 => Work::FirstWord { of: dice.roll(at) },
                _ if at > 0 => {
                    let of = (0..=dice.roll(3)).map(|_| dice.roll(at)).collect();
                    Work::Join { of, separator: dice.words() }
                }
                _ => Work::Write { text: dice.words() },
            },
        });
        let stages = stages.collect();
        let files = ["", "a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt"];
        let files = files.map(|name| (name.to_owned(), dice.words())).into();
        Self { stages, seed: 1, files, version: 1, style: 0 }
    }

    fn yaml(&self) -> String {
        let mut text = format!("# {}\nname: toys\nseed: {}\nstages:\n", self.style, self.seed);
        for stage in &self.stages {
            let mut fields = self.fields(&stage.work);
            if self.style % 2 == 1 {
                fields.reverse();
            }
            writeln!(text, "  {}: {{ {} }} # {}", stage.name, fields.join(", "), self.style).unwrap();
        }
        text
    }

    fn fields(&self, work: &Work) -> Vec<String> {
        let name = |at: &usize| self.stages[*at].name.clone();
        let field = |text: &str| text.to_owned();
        match work {
            Work::Write { text } => vec![field("kind: write"), format!("with: {{ text: '{text}' }}")],
            Work::Draw { seed: None } => vec![field("kind: draw")],
            Work::Draw { seed: Some(seed) } => vec![field("kind: draw"), format!("seed: {seed}")],
            Work::FirstWord { of } => {
                vec![field("kind: first_word"), format!("in: {{ text: {} }}", name(of))]
            }
            Work::Join { of, separator } => {
                let mut inputs: Vec<String> =
                    of.iter().enumerate().map(|(port, at)| format!("p{port}: {}", name(at))).collect();
                if self.style % 2 == 1 {
                    inputs.reverse();
                }
                vec![
                    field("kind: join"),
                    format!("in: {{ {} }}", inputs.join(", ")),
                    format!("with: {{ separator: '{separator}' }}"),
                ]
            }
            Work::List { what: Files::Folder } => {
                vec![field("kind: list"), field("in: { files: { dir: data } }")]
            }
            Work::List { what: Files::Pattern } => {
                vec![field("kind: list"), field("in: { files: { glob: 'data/**/*.txt' } }")]
            }
            Work::Copy => vec![field("kind: first_word"), field("in: { text: { file: note.txt } }")],
        }
    }

    /// What `stage` writes if it and all before it run, and the values that decide it.
    fn model(&self) -> Vec<(Deciding, String)> {
        let mut known: Vec<(Deciding, String)> = Vec::new();
        for stage in &self.stages {
            let mut deciding = Deciding::new();
            let mut set = |name: &str, value: String| deciding.insert(name.to_owned(), value);
            let first = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
            let below = || self.files.iter().filter(|(name, _)| !name.is_empty());
            let bytes = match &stage.work {
                Work::Write { text } => {
                    set("version", self.version.to_string());
                    set("with.text", text.clone());
                    text.clone()
                }
                Work::Draw { seed } => {
                    let seed = seed.unwrap_or(self.seed).to_string();
                    set("seed", seed.clone());
                    seed
                }
                Work::FirstWord { of } => {
                    set("in.text", known[*of].1.clone());
                    first(&known[*of].1)
                }
                Work::Copy => {
                    set("in.text", self.files[""].clone());
                    first(&self.files[""])
                }
                Work::Join { of, separator } => {
                    set("with.separator", separator.clone());
                    for (port, at) in of.iter().enumerate() {
                        set(&format!("in.p{port}"), known[*at].1.clone());
                    }
                    of.iter().map(|at| known[*at].1.as_str()).collect::<Vec<_>>().join(separator)
                }
                Work::List { what } => {
                    let top = if *what == Files::Folder { "" } else { "data/" };
                    let files: String = below().map(|(name, text)| format!("{top}{name}={text}\n")).collect();
                    set("in.files", files.clone());
                    files
                }
            };
            let kind = match &stage.work {
                Work::Copy => "first_word".to_owned(),
                work => self.fields(work)[0].trim_start_matches("kind: ").to_owned(),
            };
            deciding.insert("kind".into(), kind);
            known.push((deciding, bytes));
        }
        known
    }

    /// Writes the files that differ from those of `before`; the rest is left alone.
    fn write(&self, lab: &Lab, before: &BTreeMap<String, String>) {
        let path = |name: &str| match name {
            "" => lab.path("note.txt"),
            name => lab.path("data").join(name),
        };
        for name in before.keys().filter(|name| !self.files.contains_key(*name)) {
            fs::remove_file(path(name)).unwrap();
        }
        for (name, text) in self.files.iter().filter(|(name, text)| before.get(*name) != Some(text)) {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), text).unwrap();
        }
        lab.text.replace(self.yaml());
        lab.kinds.set(if self.version == 1 { toys::KINDS } else { toys::NEXT_KINDS });
    }

    /// Makes one edit; false where there is nothing that it could change.
    fn edit(&mut self, edit: Edit, past: &[Project], dice: &mut Dice) -> bool {
        let pick = |stages: &[Stage], dice: &mut Dice, wanted: fn(&Work) -> bool| {
            let all: Vec<usize> = (0..stages.len()).filter(|at| wanted(&stages[*at].work)).collect();
            (!all.is_empty()).then(|| all[dice.roll(all.len())])
        };
        let mut names: Vec<String> = self.files.keys().filter(|name| !name.is_empty()).cloned().collect();
        let new_name = format!("{}{}.txt", ["", "deep/", "new/"][dice.roll(3)], dice.next());
        match edit {
            Parameter => {
                let wanted = |work: &Work| matches!(work, Work::Write { .. } | Work::Join { .. });
                let Some(at) = pick(&self.stages, dice, wanted) else { return false };
                match &mut self.stages[at].work {
                    Work::Write { text: value } | Work::Join { separator: value, .. } => {
                        *value = dice.words();
                    }
                    _ => unreachable!("picked"),
                }
            }
            OwnSeed => {
                let wanted = |work: &Work| matches!(work, Work::Draw { .. });
                let Some(at) = pick(&self.stages, dice, wanted) else { return false };
                self.stages[at].work = Work::Draw { seed: Some(dice.roll(4) as u64) };
            }
            PipelineSeed => self.seed = dice.roll(4) as u64,
            OneFile => *self.files.get_mut("").unwrap() = dice.words(),
            AddFile => drop(self.files.insert(new_name, dice.words())),
            FileContents | RemoveFile | RenameFile if names.is_empty() => return false,
            FileContents => {
                *self.files.get_mut(&names[dice.roll(names.len())]).unwrap() = dice.words();
            }
            // A pattern without a file is an error, so that one file stays.
            RemoveFile if names.len() == 1 => return false,
            RemoveFile => drop(self.files.remove(&names.swap_remove(dice.roll(names.len())))),
            RenameFile => {
                let text = self.files.remove(&names.swap_remove(dice.roll(names.len()))).unwrap();
                self.files.insert(new_name, text);
            }
            KeyOrder => self.style += 1,
            Comment => self.style += 2,
            RenameStage => {
                let at = dice.roll(self.stages.len());
                self.stages[at].name = format!("renamed_{}", dice.next());
            }
            KindVersion => self.version = 3 - self.version,
            SwitchBack => *self = past[dice.roll(past.len())].clone(),
            Touch => {}
        }
        true
    }
}

/// Random numbers from one seed that proptest chose.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % 1_000_000
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.next() as usize % sides
    }

    /// Few enough words that values come back, and that first words are often equal.
    fn words(&mut self) -> String {
        let words = ["red", "blue", "blue sky", "blue sea", "red sea", "sky"];
        words[self.roll(words.len())].to_owned()
    }
}

/// What must be said of a stage that has to run: the names of the values that differ from the latest result.
fn differences(old: &Deciding, new: &Deciding) -> BTreeSet<String> {
    let names = old.keys().chain(new.keys());
    names.filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}

/// What was said: the same names, and for folders the names of files.
fn told(reasons: &[Reason]) -> (BTreeSet<String>, Vec<String>) {
    let mut names = BTreeSet::new();
    let mut files = Vec::new();
    for reason in reasons {
        names.insert(match reason {
            Reason::Parameter { path, .. } => format!("with.{path}"),
            Reason::Input { port, files: changes, .. } => {
                if let Some(changes) = changes {
                    for (what, names) in
                        [("+", &changes.added), ("-", &changes.removed), ("~", &changes.changed)]
                    {
                        assert_eq!(names.count, names.first.len(), "few files are all named");
                        files.extend(names.first.iter().map(|name| format!("{what}{name}")));
                    }
                }
                format!("in.{port}")
            }
            Reason::Seed { .. } => "seed".into(),
            Reason::Version { .. } => "version".into(),
            Reason::Kind { .. } => "kind".into(),
            Reason::NeverRun => "never run".into(),
            Reason::Upstream { .. } => continue,
            other => panic!("{other:?} is no reason for an edit"),
        });
    }
    files.sort();
    (names, files)
}

/// The files that differ between two texts of `List`, as [`told`] writes them.
fn file_differences(old: &str, new: &str) -> Vec<String> {
    let parse = |text: &str| -> BTreeMap<String, String> {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    };
    let (old, new) = (parse(old), parse(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut differences: Vec<String> = names
        .into_iter()
        .filter_map(|name| match (old.get(name), new.get(name)) {
            (None, _) => Some(format!("+{name}")),
            (_, None) => Some(format!("-{name}")),
            (old, new) => (old != new).then(|| format!("~{name}")),
        })
        .collect();
    differences.sort();
    differences
}

/// Runs a project through `EDITS` edits; counts the edits made of each sort.
fn work_on(size: usize, dice: &mut Dice, counts: &mut BTreeMap<Edit, [usize; 2]>) {
    let mut project = Project::new(size, dice);
    let lab = Lab::new(&project.yaml());
    fs::write(lab.path("note.txt"), "").unwrap();
    project.write(&lab, &BTreeMap::new());
    let mut computed: BTreeSet<Deciding> = BTreeSet::new();
    // By the name of the stage, as `previous` of the lab has it.
    let mut latest: BTreeMap<String, Deciding> = BTreeMap::new();
    let mut past = Vec::new();
    let mut edit = None;
    for _ in 0..=EDITS {
        let model = project.model();
        let stages = || project.stages.iter().zip(&model);
        // Of equal stages one runs; here the first of them stands for it.
        let mut must_run = BTreeSet::new();
        let mut fresh = computed.clone();
        for (stage, (deciding, _)) in stages() {
            if fresh.insert(deciding.clone()) {
                must_run.insert(stage.name.clone());
            }
        }

        let mut will_run = BTreeSet::new();
        for plan in lab.planned(&Options::default()) {
            let (stage, (deciding, _)) = stages().find(|(stage, _)| stage.name == plan.stage).unwrap();
            let waits = plan.reasons.iter().any(|reason| matches!(reason, Reason::Upstream { .. }));
            if let Verdict::Cached(_) = plan.verdict {
                assert!(computed.contains(deciding), "{edit:?}: {plan:?}");
                continue;
            }
            will_run.insert(plan.stage.clone());
            let (names, files) = told(&plan.reasons);
            let Some(old) = latest.get(&plan.stage) else {
                assert_eq!(names, BTreeSet::from(["never run".to_owned()]), "{edit:?}: {plan:?}");
                continue;
            };
            let truth = differences(old, deciding);
            if waits {
                // Inputs that are not known yet are not told.
                assert!(names.is_subset(&truth), "{edit:?}: {plan:?} but {truth:?}");
                let certain = truth.iter().filter(|name| !name.starts_with("in."));
                assert!(certain.into_iter().all(|name| names.contains(name)), "{edit:?}: {plan:?}");
            } else {
                assert!(!computed.contains(deciding), "{edit:?}: {plan:?}");
                assert_eq!(names, truth, "{edit:?}: {plan:?}");
            }
            if let Work::List { .. } = stage.work {
                assert_eq!(files, file_differences(&old["in.files"], &deciding["in.files"]), "{plan:?}");
            }
        }
        assert!(must_run.is_subset(&will_run), "{edit:?}: {must_run:?} not in {will_run:?}");

        let ran = lab.run();
        let ran_stages = ran.stages(Outcome::Ran);
        let of_equal = |stage: &&str| stages().find(|(other, _)| other.name == **stage).unwrap().1.0.clone();
        let executed: Vec<Deciding> = ran_stages.iter().map(of_equal).collect();
        let once: BTreeSet<Deciding> = executed.iter().cloned().collect();
        let must: BTreeSet<Deciding> = fresh.difference(&computed).cloned().collect();
        assert_eq!((&once, executed.len()), (&must, must.len()), "{edit:?} in\n{}", lab.text.borrow());
        for (stage, (deciding, bytes)) in stages() {
            assert_eq!(lab.output(&ran.records[&stage.name]), *bytes, "{edit:?}: {}", stage.name);
            latest.insert(stage.name.clone(), deciding.clone());
        }
        computed = fresh;
        if let Some(edit) = edit {
            let [made, with_effect] = counts.entry(edit).or_default();
            *made += 1;
            *with_effect += usize::from(!must_run.is_empty());
        }

        past.push(project.clone());
        let before = project.files.clone();
        edit = loop {
            let edit = ALL[dice.roll(ALL.len())];
            if project.edit(edit, &past, dice) {
                break Some(edit);
            }
        };
        project.write(&lab, &before);
        if edit == Some(Touch) {
            for name in project.files.keys().filter(|name| !name.is_empty()) {
                let text = fs::read(lab.path("data").join(name)).unwrap();
                fs::write(lab.path("data").join(name), text).unwrap();
            }
        }
    }
}

#[test]
fn after_random_edits_exactly_the_right_stages_run_and_the_reasons_name_the_edit() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        max_shrink_iters: 20,
        // The size and the seed that fail are printed: they make the same project again.
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.unwrap_or(PROJECTS))
    };
    let counts = std::cell::RefCell::new(BTreeMap::new());
    let projects = TestRunner::new(config).run(&(1usize..10, any::<u64>()), |(size, seed)| {
        work_on(size, &mut Dice(seed), &mut counts.borrow_mut());
        Ok(())
    });
    let counts = counts.into_inner();
    for (edit, [made, with_effect]) in &counts {
        println!("{edit:?}: {made} edits, {with_effect} made a stage run");
    }
    println!("{} edits", counts.values().map(|[made, _]| made).sum::<usize>());
    projects.unwrap();
    let quiet = [Touch, KeyOrder, Comment, RenameStage];
    assert!(quiet.iter().all(|edit| counts.get(edit).is_none_or(|[_, with_effect]| *with_effect == 0)));
    assert!(cases.is_some() || ALL.iter().all(|edit| counts.contains_key(edit)), "every sort was tried");
}
