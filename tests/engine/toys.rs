//! Kinds of stages that are quick to run and easy to reason about.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use pipe_stages::contract::{PortType, Ports, Stage, StageCx, StageError, StageKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All toy kinds.
pub const KINDS: &[StageKind] = &[
    StageKind::of::<Write>(),
    StageKind::of::<FirstWord>(),
    StageKind::of::<Join>(),
    StageKind::of::<List>(),
    StageKind::of::<Draw>(),
    StageKind::of::<Moody>(),
    StageKind::of::<Fail>(),
    StageKind::of::<Panic>(),
];

/// The same kinds in another release, in which `write` would write other bytes.
pub const NEXT_KINDS: &[StageKind] = &{
    let [mut write, first_word, join, list, draw, ..] = *KINDS else { panic!("there are more") };
    write.version += 1;
    [write, first_word, join, list, draw]
};

/// Writes its parameter.
struct Write;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WriteParams {
    text: String,
}

impl Stage for Write {
    type Params = WriteParams;
    const KIND: &'static str = "write";
    const SUMMARY: &'static str = "Writes its parameter";
    const VERSION: u32 = 1;

    fn ports(_: &WriteParams) -> Ports {
        Ports::new().output("text", PortType::File, "the parameter")
    }

    fn run(params: WriteParams, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        cx.metric("length", params.text.len() as f64);
        write(cx, &params.text)
    }
}

/// Keeps the first word, so that many inputs give the same output.
struct FirstWord;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Stage for FirstWord {
    type Params = Nothing;
    const KIND: &'static str = "first_word";
    const SUMMARY: &'static str = "Keeps the first word";
    const VERSION: u32 = 1;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().input("text", PortType::File, "words").output("text", PortType::File, "the first word")
    }

    fn run(_: Nothing, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let text = fs::read_to_string(cx.input("text")).expect("the input is there");
        write(cx, text.split_whitespace().next().unwrap_or_default())
    }
}

/// Joins any number of inputs.
struct Join;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JoinParams {
    #[serde(default)]
    separator: String,
}

impl Stage for Join {
    type Params = JoinParams;
    const KIND: &'static str = "join";
    const SUMMARY: &'static str = "Joins its inputs";
    const VERSION: u32 = 1;

    fn ports(_: &JoinParams) -> Ports {
        Ports::new().named_inputs(PortType::File, "parts").output("text", PortType::File, "all parts")
    }

    fn run(params: JoinParams, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let parts: BTreeMap<_, _> =
            cx.inputs().iter().map(|(name, path)| (name, fs::read_to_string(path))).collect();
        let parts: Vec<String> = parts.into_values().map(|part| part.expect("the input is there")).collect();
        write(cx, &parts.join(&params.separator))
    }
}

/// Lists the names and contents of files.
struct List;

impl Stage for List {
    type Params = Nothing;
    const KIND: &'static str = "list";
    const SUMMARY: &'static str = "Lists names and contents of files";
    const VERSION: u32 = 1;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().input("files", PortType::Any, "a folder").output("text", PortType::File, "a line a file")
    }

    fn run(_: Nothing, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let folder = cx.input("files");
        let files = walkdir::WalkDir::new(folder).follow_links(true).into_iter().filter_map(Result::ok);
        let mut lines: Vec<String> = files
            .filter(|file| file.file_type().is_file())
            .map(|file| {
                let name = file.path().strip_prefix(folder).expect("below the folder").display();
                format!("{name}={}\n", fs::read_to_string(file.path()).expect("the file is there"))
            })
            .collect();
        lines.sort();
        write(cx, &lines.concat())
    }
}

/// Writes its seed.
struct Draw;

impl Stage for Draw {
    type Params = Nothing;
    const KIND: &'static str = "draw";
    const SUMMARY: &'static str = "Writes its seed";
    const VERSION: u32 = 1;
    const DRAWS: bool = true;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().output("text", PortType::File, "the seed")
    }

    fn run(_: Nothing, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        write(cx, &cx.seed().to_string())
    }
}

/// Writes something else every time, as no stage should.
struct Moody;

impl Stage for Moody {
    type Params = Nothing;
    const KIND: &'static str = "moody";
    const SUMMARY: &'static str = "Writes something else every time";
    const VERSION: u32 = 1;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().output("text", PortType::File, "something")
    }

    fn run(_: Nothing, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        write(cx, &CALLS.fetch_add(1, Ordering::SeqCst).to_string())
    }
}

/// Fails.
struct Fail;

impl Stage for Fail {
    type Params = Nothing;
    const KIND: &'static str = "fail";
    const SUMMARY: &'static str = "Fails";
    const VERSION: u32 = 1;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().output("text", PortType::File, "never written")
    }

    fn run(_: Nothing, _: &mut StageCx<'_>) -> Result<(), StageError> {
        Err(StageError::new("the toy is broken").help("buy another"))
    }
}

/// Panics, which in this process stands for a bug of `pipe` itself.
struct Panic;

impl Stage for Panic {
    type Params = Nothing;
    const KIND: &'static str = "panic";
    const SUMMARY: &'static str = "Panics";
    const VERSION: u32 = 1;

    fn ports(_: &Nothing) -> Ports {
        Ports::new().output("text", PortType::File, "never written")
    }

    fn run(_: Nothing, _: &mut StageCx<'_>) -> Result<(), StageError> {
        panic!("the toy has a bug")
    }
}

fn write(cx: &StageCx<'_>, text: &str) -> Result<(), StageError> {
    let path = cx.output("text");
    fs::write(path, text).map_err(|err| StageError::io("write", path, err))
}
