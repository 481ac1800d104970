//! `pipe get`: outputs of a run, out of the cache.

use std::{
    fs::{self, File, Permissions},
    io::{self, IsTerminal, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use pipe_stages::{
    contract::{PortType, Stage},
    data::folder::unpack,
    kinds::shell::{self, Shell},
};
use serde_json::{Value, json};

use super::{
    Failure, Globals,
    execute::join,
    history::{self, json_text},
    out::{cannot_write, folder_of},
    table::Columns,
    units::{counted, size},
};
use crate::{
    cache::Cache,
    digest::Digest,
    meant::in_order,
    names::RunId,
    record::Artifact,
    runs::{
        LoadedRun, LoadedStage, Origin, RunsDb,
        lineage::{Asked, What},
    },
};

/// Of several outputs, how many are named.
const SHOWN: usize = 4;
/// Bytes in which a file that is no text is taken to have a zero.
const LOOKED_AT: u64 = 8192;

/// Take outputs of a run out of the cache
///
/// Without an output, lists what the run has. One output goes to standard output or to a file, any number
/// into a folder. They are copies: change or remove them as you like.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe get @last                                what there is
  pipe get @last eval.tables                    one to look at
  pipe get run_12 train.model -o model.pt
  pipe get run_12 train eval --into results     results/train/model, results/eval/tables, …
  pipe get run_12 'train[rank=4]' --into best   a part of a matrix
  python3 plot.py \"$(pipe get @last train.model --path)\"")]
pub(super) struct Get {
    /// `run_12`, `12`, `@last`, `@last~1` or a tag
    run: String,
    /// `STAGE.OUTPUT`, `STAGE` for all that it wrote, or the beginning of an output's hash
    #[arg(value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// Write one output to this file
    #[arg(long, short, value_name = "FILE", group = "way")]
    out: Option<PathBuf>,
    /// Write outputs, or all of the run, below this folder as `STAGE/OUTPUT`
    #[arg(long, value_name = "DIR", group = "way")]
    into: Option<PathBuf>,
    /// Print where they lie in the cache: to be read there, and not for longer than until `pipe gc`
    #[arg(long, group = "way")]
    path: bool,
    /// Print what they are as JSON
    #[arg(long, group = "way")]
    json: bool,
}

/// An output of a run.
struct Output<'a> {
    stage: &'a str,
    artifact: &'a Artifact,
    /// The output's name, with the ending that the stage gave it.
    file_name: &'a str,
}

impl Output<'_> {
    fn name(&self) -> String {
        format!("{}.{}", self.stage, self.artifact.port)
    }

    fn is(&self, asked: &Asked) -> bool {
        asked.stage == self.stage
            && match &asked.what {
                What::Output(artifact) => artifact.port == self.artifact.port,
                What::Result => true,
                What::Metric(..) => false,
            }
    }
}

impl Get {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let db = history::open(globals)?;
        let run = db.load(db.find(&self.run)?)?;
        let cache = Cache::open(&globals.project_root(None)?.join("cache"));
        // What is being read must not be collected meanwhile.
        let _hold = join(&cache, &|text| globals.say(text))?;
        let outputs = chosen(globals, &db, &run, &self.outputs)?;
        if outputs.is_empty() {
            globals.say(format_args!("{} has no outputs", run.info.run));
        }
        let whole = || -> Result<Vec<PathBuf>, Failure> {
            outputs.iter().map(|output| object(&cache, run.info.run, output)).collect()
        };
        if self.json {
            globals.print(json(&cache, &outputs))?;
        } else if self.path {
            let lines = whole()?.into_iter().map(|path| format!("{}\n", path.display()));
            globals.print(lines.collect::<String>())?;
        } else if let Some(folder) = &self.into {
            for (output, path) in outputs.iter().zip(whole()?) {
                write(
                    globals,
                    output,
                    &path,
                    &folder.join(folder_of_stage(output.stage)).join(output.file_name),
                )?;
            }
        } else if self.out.is_none() && self.outputs.is_empty() {
            history::print(globals, &list(&cache, &outputs))?;
        } else {
            let output = only(&outputs)?;
            let path = object(&cache, run.info.run, output)?;
            match &self.out {
                Some(file) => write(globals, output, &path, file)?,
                None => print(globals, &path)?,
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The outputs of `run` that `names` mean, in the order of their own; without names, all.
fn chosen<'a>(
    globals: &Globals,
    db: &RunsDb,
    run: &'a LoadedRun,
    names: &[String],
) -> Result<Vec<Output<'a>>, Failure> {
    let id = run.info.run;
    let made = run.stages.iter().filter_map(|stage| Some((stage, stage.execution.as_ref()?)));
    let of_stage = |(stage, made): (&'a LoadedStage, &'a Origin)| {
        made.outputs.iter().map(move |artifact| Output {
            stage: &stage.stage,
            artifact,
            file_name: file_name(&stage.kind, &stage.params, &artifact.port),
        })
    };
    let mut outputs: Vec<Output> = made.flat_map(of_stage).collect();
    outputs.sort_by(|a, b| in_order(a.stage, b.stage).then_with(|| a.artifact.port.cmp(&b.artifact.port)));
    let mut wanted = Vec::new();
    for name in names {
        let (asked, without) = db.asked_all(run, name)?;
        without.iter().for_each(|stage| {
            globals.say(format_args!("`{stage}` has no result in {id} and is left out"));
        });
        if asked.iter().all(|asked| matches!(asked.what, What::Metric(..))) {
            return Err(Failure::input(format!("`{name}` is a metric of {id}, not an output"))
                .help(format!("`pipe show {id}` has its value")));
        }
        if !outputs.iter().any(|output| asked.iter().any(|asked| output.is(asked))) {
            return Err(Failure::input(format!("stage `{name}` has no outputs")));
        }
        wanted.extend(asked);
    }
    outputs.retain(|output| names.is_empty() || wanted.iter().any(|asked| output.is(asked)));
    Ok(outputs)
}

/// The folder that outputs of `stage` are written to: of `train[rank=4,lr=0.001]` it is
/// `train/rank=4,lr=0.001`, which no shell takes for a pattern.
pub(super) fn folder_of_stage(stage: &str) -> PathBuf {
    match stage.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((stage, at)) => Path::new(stage).join(at),
        None => stage.into(),
    }
}

/// What the file of an output of a stage is called.
fn file_name<'a>(kind: &str, params: &'a Value, port: &'a str) -> &'a str {
    if kind == Shell::KIND { shell::file_name(params, port) } else { port }
}

/// The one output that was asked for.
fn only<'a>(outputs: &'a [Output<'a>]) -> Result<&'a Output<'a>, Failure> {
    match outputs {
        [output] => Ok(output),
        several => {
            let names: Vec<_> = several.iter().take(SHOWN).map(Output::name).collect();
            let more = if several.len() > SHOWN { ", …" } else { "" };
            let count = counted(several.len(), "output");
            Err(Failure::input(format!("{count} are meant: {}{more}", names.join(", ")))
                .help("name one, or write all into a folder: `--into DIR`"))
        }
    }
}

/// Where the bytes of `output` lie in the cache.
fn object(cache: &Cache, run: RunId, output: &Output<'_>) -> Result<PathBuf, Failure> {
    whole(cache, output.artifact.digest, run, &format!("`{}`", output.name()))
}

/// Where the bytes of `digest`, which are `what` of `run`, lie in the cache.
pub(super) fn whole(cache: &Cache, digest: Digest, run: RunId, what: &str) -> Result<PathBuf, Failure> {
    match cache.flaw(digest) {
        None => Ok(cache.object(digest)),
        Some(damage) => Err(Failure::input(format!("{what} in {run}: {} in the cache", damage.word()))
            .help(format!("`pipe reproduce {run}` computes it again"))),
    }
}

fn list(cache: &Cache, outputs: &[Output<'_>]) -> String {
    let mut table = Columns::new(&["OUTPUT", "TYPE", "SIZE", "HASH", ""]).right([2]);
    for output in outputs {
        let Artifact { port_type, digest, bytes, .. } = output.artifact;
        let is_kept = cache.object(*digest).exists();
        table.row(vec![
            output.name(),
            port_type.to_string(),
            size(*bytes),
            digest.short(),
            if is_kept { "" } else { "not in the cache" }.to_owned(),
        ]);
    }
    table.text()
}

fn json(cache: &Cache, outputs: &[Output<'_>]) -> String {
    let document = outputs.iter().map(|output| {
        let mut document = json!(output.artifact);
        let path = cache.object(output.artifact.digest);
        document["stage"] = json!(output.stage);
        document["path"] = json!(path.exists().then_some(path));
        document
    });
    json_text(&document.collect::<Vec<_>>())
}

/// Copies `object` to standard output; what is no text does not go to a terminal.
fn print(globals: &Globals, object: &Path) -> Result<(), Failure> {
    let unreadable = |err| Failure::input(format!("cannot read `{}`: {err}", object.display())).exit(1);
    let mut file = File::open(object).map_err(unreadable)?;
    let mut begin = Vec::new();
    (&mut file).take(LOOKED_AT).read_to_end(&mut begin).map_err(unreadable)?;
    if begin.contains(&0) && io::stdout().is_terminal() {
        return Err(Failure::input("this is no text, and does not go to a terminal")
            .help("name a file: `--out FILE`"));
    }
    globals.print_bytes(begin.chain(file))
}

/// Writes a copy of an output, which lies in `object`, and says so.
fn write(globals: &Globals, output: &Output<'_>, object: &Path, to: &Path) -> Result<(), Failure> {
    let is_folder = output.artifact.port_type == PortType::Folder;
    let written = if is_folder { copy_folder(object, to) } else { copy_file(object, to) };
    written.map_err(|err| match cannot_write(to, &err) {
        failure if is_folder && to.exists() => failure.exit(2).help("name a folder that is new or empty"),
        failure if to.is_dir() => failure.help("write into a folder with `--into DIR`"),
        failure => failure,
    })?;
    globals.say(format_args!("wrote {} ({})", to.display(), size(output.artifact.bytes)));
    Ok(())
}

/// Copies `object` to `file`, in place of a file that is there once the copy is whole.
fn copy_file(object: &Path, file: &Path) -> io::Result<()> {
    let mut from = File::open(object)?;
    if file.exists() && !file.is_file() {
        return io::copy(&mut from, &mut File::options().write(true).open(file)?).map(drop);
    }
    let executable = from.metadata()?.permissions().mode() & 0o111;
    let permissions = Permissions::from_mode(0o666 | executable);
    let mut copy = tempfile::Builder::new().permissions(permissions).tempfile_in(folder_of(file)?)?;
    io::copy(&mut from, &mut copy)?;
    copy.persist(file)?;
    Ok(())
}

/// Unpacks `object` as the folder `to`, which is new or empty, once the copy is whole.
fn copy_folder(object: &Path, to: &Path) -> io::Result<()> {
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(folder_of(to)?)?;
    let whole = unfinished.path().join("whole");
    unpack(object, &whole, false)?;
    fs::rename(whole, to)
}
