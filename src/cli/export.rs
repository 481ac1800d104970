//! `pipe export`: runs in the forms that other tools read.

mod transformers;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    Failure, Globals,
    history::{self, csv_line},
    out::{cannot_write, write},
    units::{counted, size},
};
use crate::{
    export::{self, Subject},
    runs::RunsDb,
};

/// Write runs in a form that other tools read: CSV, JSON lines, TensorBoard, MLflow, transformers
///
/// CSV has one row for each measured value, JSON lines have parameters, outputs and histograms too; they and
/// what TensorBoard and MLflow get come from `runs.db`. For transformers and peft the trained models are
/// written, from what the cache holds. Where the form is a folder, exporting a run again replaces it there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pipe export @last --to csv > metrics.csv
  pipe export run_12 run_15 --to jsonl --out runs.jsonl
  pipe export run_12 run_15 --to tensorboard       then: tensorboard --logdir tensorboard
  pipe export @last --to mlflow --out mlruns       then, with MLflow 3.10 or newer:
    mlflow migrate-filestore --source mlruns --target sqlite:///mlflow.db
    mlflow server --backend-store-uri sqlite:///mlflow.db
  pipe export run_12 --to transformers             models/run_12/STAGE for each stage that trained
  pipe export run_12 --to transformers --stage lora --out adapters")]
pub(super) struct Export {
    /// One or more of `run_12`, `12`, `@last`, `@last~1`, tags
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    /// The form
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
    /// The file for csv and jsonl [default: standard output]; the folder for tensorboard, mlflow and
    /// transformers [default: `tensorboard`, `mlruns`, `models`]
    #[arg(long, short, value_name = "PATH")]
    out: Option<PathBuf>,
    /// With `--to transformers`: only what this stage trained; can be given several times
    #[arg(long = "stage", value_name = "STAGE")]
    stages: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// One row for each measured value: run,stage,metric,step,value
    Csv,
    /// One JSON object for each run, stage, param, metric, histogram and artifact
    Jsonl,
    /// Event files: scalars, histograms, hyper-parameters, the pipeline as a text
    Tensorboard,
    /// MLflow's file store: one experiment for a pipeline, one run for a run
    Mlflow,
    /// Trained models: checkpoints that transformers loads, LoRA adapters that peft loads
    Transformers,
}

impl Export {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        if !self.stages.is_empty() && !matches!(self.to, Form::Transformers) {
            return Err(Failure::input("`--stage` goes with `--to transformers` alone"));
        }
        let db = history::open(globals)?;
        let mut subjects: Vec<Subject> = Vec::new();
        for name in &self.runs {
            let subject = subject(&db, name)?;
            if subjects.iter().all(|known| known.run.info.run != subject.run.info.run) {
                subjects.push(subject);
            }
        }
        let out = |default: &str| self.out.clone().unwrap_or_else(|| default.into());
        match self.to {
            Form::Csv => self.print(globals, &csv(&subjects))?,
            Form::Jsonl => self.print(globals, &subjects.iter().map(export::jsonl).collect::<String>())?,
            Form::Tensorboard => tensorboard(globals, &out("tensorboard"), &subjects)?,
            Form::Mlflow => mlflow(globals, &out("mlruns"), &subjects)?,
            Form::Transformers => {
                transformers::transformers(globals, &out("models"), &subjects, &self.stages)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, globals: &Globals, text: &str) -> Result<(), Failure> {
        let Some(path) = &self.out else { return globals.print(text) };
        write(path, text)?;
        globals.say(format_args!("wrote {} ({})", path.display(), size(text.len() as u64)));
        Ok(())
    }
}

fn subject(db: &RunsDb, name: &str) -> Result<Subject, Failure> {
    let run = db.load(db.find(name)?)?;
    let id = run.info.run;
    Ok(Subject::new(run, db.series(id, |_| true)?, db.histograms(id)?, db.patch(id)?))
}

fn csv(subjects: &[Subject]) -> String {
    let mut text = csv_line(&export::COLUMNS.map(ToOwned::to_owned));
    for subject in subjects {
        export::rows(subject).for_each(|row| text.push_str(&csv_line(&row)));
    }
    text
}

fn tensorboard(globals: &Globals, out: &Path, subjects: &[Subject]) -> Result<(), Failure> {
    for subject in subjects {
        let path = out.join(export::event_file(subject));
        write(&path, export::events(subject))?;
        globals.say(format_args!("wrote {}", path.display()));
    }
    globals.say(format_args!("look at it with `tensorboard --logdir {}`", out.display()));
    Ok(())
}

fn mlflow(globals: &Globals, out: &Path, subjects: &[Subject]) -> Result<(), Failure> {
    fs::create_dir_all(out).map_err(|err| cannot_write(out, &err))?;
    let store = out.canonicalize().map_err(|err| cannot_write(out, &err))?;
    for subject in subjects {
        let info = &subject.run.info;
        let known = experiment_named(&store, &info.pipeline);
        let id = known.clone().unwrap_or_else(|| export::experiment_id(&info.pipeline));
        let folder = store.join(&id);
        if known.is_none() {
            let meta = export::experiment_meta(&info.pipeline, &id, &folder, info.started);
            write(&folder.join("meta.yaml"), meta.as_bytes())?;
        }
        let target = folder.join(export::run_folder(info));
        let files = export::run_files(subject, &id, &target);
        replace(&target, |folder| {
            files.iter().try_for_each(|file| write(&folder.join(&file.path), &file.bytes))
        })?;
        let at = out.join(&id).join(export::run_folder(info));
        globals.say(format_args!("wrote {}, {}", at.display(), counted(files.len(), "file")));
    }
    let out = out.display();
    globals.say(format_args!(
        "MLflow before 3.13 reads {out} as it is, newer ones with MLFLOW_ALLOW_FILE_STORE=true or after\n\
         `mlflow migrate-filestore --source {out} --target sqlite:///mlflow.db`"
    ));
    Ok(())
}

/// The number of the experiment of this name in an MLflow store, whoever made it.
fn experiment_named(store: &Path, name: &str) -> Option<String> {
    let folders = fs::read_dir(store).ok()?.flatten();
    let metas = folders.filter_map(|folder| fs::read_to_string(folder.path().join("meta.yaml")).ok());
    let mut known = metas.filter_map(|meta| serde_yaml::from_str::<Value>(&meta).ok());
    let found = known.find(|meta| meta["name"] == name)?;
    found["experiment_id"].as_str().map(ToOwned::to_owned)
}

/// Puts what `fill` writes into an empty folder at `folder`, in place of what is there.
fn replace(folder: &Path, fill: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |err| cannot_write(folder, &err);
    let parent = folder.parent().expect("a run lies in a folder");
    fs::create_dir_all(parent).map_err(failed)?;
    // What is not whole must not look like a run: MLflow looks at folders that have a `meta.yaml`.
    let unfinished = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(parent).map_err(failed)?;
    let whole = unfinished.path().join("whole");
    fs::create_dir(&whole).map_err(failed)?;
    fill(&whole)?;
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    fs::rename(&whole, folder).map_err(failed)
}
