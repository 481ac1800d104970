//! `pipe report`: runs as one page to look at and to mail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use pipe_stages::{
    contract::PortType,
    data::{Review, parse_predictions},
};

use super::{Failure, Globals, history, metrics::is_detail, out::write, units::size};
use crate::{
    cache::Cache,
    digest::Digest,
    report::{Subject, report, wanted_texts},
    runs::{LoadedRun, RunsDb},
};

/// Write runs as one HTML page: graph, curves, results, mistakes, parameters
///
/// The page needs no network and no script. It is made from `runs.db` alone; only the texts of
/// reviews come from the cache, as far as it still has them. Of several runs the first is what the
/// others are compared with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe report @last --out report.html
  pipe report baseline @last --out comparison.html")]
pub(super) struct Report {
    /// One or more of `run_12`, `12`, `@last`, `@last~1`, tags
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// Write to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Report {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        if self.out.is_none() && io::stdout().is_terminal() {
            return Err(
                Failure::input("a page is not for a terminal").help("name a file: `--out report.html`")
            );
        }
        let db = history::open(globals)?;
        let mut subjects = Vec::new();
        for name in &self.runs {
            let run = db.load(db.find(name)?)?;
            if subjects.iter().all(|known: &Subject| known.run.info.run != run.info.run) {
                subjects.push(subject(&db, run)?);
            }
        }
        let cache = Cache::open(&globals.project_root(None)?.join("cache"));
        let wanted = wanted_texts(&subjects);
        for subject in &mut subjects {
            subject.texts = texts(&cache, &subject.run, &wanted);
        }
        let page = report(&subjects);
        match &self.out {
            None => globals.print(page)?,
            Some(path) => {
                write(path, &page)?;
                globals.say(format_args!("wrote {} ({})", path.display(), size(page.len() as u64)));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn subject(db: &RunsDb, run: LoadedRun) -> Result<Subject, Failure> {
    let series = db.series(run.info.run, |metric| !is_detail(metric))?;
    let mut predictions = BTreeMap::new();
    for digest in digests_of(&run, PortType::Predictions).chain(inputs_of(&run)) {
        if predictions.contains_key(&digest) {
            continue;
        }
        // A program may have written something else to a port of any type: then there is nothing to show.
        let rows =
            db.predictions(digest)?.and_then(|csv| parse_predictions("predictions", csv.as_slice()).ok());
        predictions.insert(digest, rows.unwrap_or_default());
    }
    Ok(Subject { run, series, predictions, texts: BTreeMap::new() })
}

/// The digests of all outputs of this type.
fn digests_of(run: &LoadedRun, port_type: PortType) -> impl Iterator<Item = Digest> + '_ {
    let outputs =
        run.stages.iter().filter_map(|stage| stage.execution.as_ref()).flat_map(|made| &made.outputs);
    outputs.filter(move |output| output.port_type == port_type).map(|output| output.digest)
}

/// The digests of what `evaluate` stages take; predictions may come from outside.
fn inputs_of(run: &LoadedRun) -> impl Iterator<Item = Digest> + '_ {
    let stages = run.stages.iter().filter(|stage| stage.kind == "evaluate");
    let inputs = stages.filter_map(|stage| stage.execution.as_ref()?.hashed.get("in")?.as_object());
    inputs.flat_map(|inputs| inputs.values()).filter_map(|digest| digest.as_str()?.parse().ok())
}

/// The texts of the reviews in `wanted`, from those of the run's reviews that the cache still has.
fn texts(cache: &Cache, run: &LoadedRun, wanted: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for digest in digests_of(run, PortType::Reviews) {
        let Ok(file) = File::open(cache.object(digest)) else { continue };
        for line in BufReader::with_capacity(1 << 20, file).lines().map_while(Result::ok) {
            if texts.len() == wanted.len() {
                return texts;
            }
            if let Ok(review) = serde_json::from_str::<Review>(&line)
                && wanted.contains(&review.id)
            {
                texts.insert(review.id, review.text);
            }
        }
    }
    texts
}
