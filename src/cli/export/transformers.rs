//! `pipe export --to transformers`: what stages trained, as folders that Python loads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{self, Path},
};

use pipe_stages::{
    contract::StageError,
    data::Hidden,
    gpt2::{
        Activation, Method, ModelFile, Weights,
        transformers::{Base, Classifier},
    },
};

use super::{cannot_write, replace};
use crate::{
    cache::Cache,
    cli::{
        Failure, Globals,
        execute::join,
        get::{folder_of_stage, whole},
    },
    digest::Digest,
    export::{Subject, Trained, trained},
    meant::{meant, of_file},
    names::RunId,
    runs::LoadedRun,
};

/// Writes `OUT/run_12/STAGE/` for every trained model of `subjects`, or for those of `stages`.
pub(super) fn transformers(
    globals: &Globals,
    out: &Path,
    subjects: &[Subject],
    stages: &[String],
) -> Result<(), Failure> {
    let cache = Cache::open(&globals.project_root(None)?.join("cache"));
    // What is being read must not be collected meanwhile.
    let _hold = join(&cache, &|text| globals.say(text))?;
    for subject in subjects {
        let run = subject.run.info.run;
        for model in chosen(&subject.run, stages)? {
            let folder = out.join(run.to_string()).join(folder_of_stage(model.stage));
            let what = write(&cache, run, &model, &folder)?;
            globals.say(format_args!("wrote {}: {what}", folder.display()));
        }
    }
    Ok(())
}

/// The trained models of `run` that were asked for.
fn chosen<'a>(run: &'a LoadedRun, stages: &[String]) -> Result<Vec<Trained<'a>>, Failure> {
    let id = run.info.run;
    let all = trained(run);
    if all.is_empty() {
        return Err(Failure::input(format!("{id} has no trained model"))
            .help("stages of the kinds `fine_tune` and `lora` give one"));
    }
    let names = || all.iter().map(|model| model.stage);
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    for name in stages {
        let stages = meant(name, names().collect::<Vec<_>>()).unwrap_or_default();
        if stages.is_empty() {
            return Err(Failure::input(format!("no stage `{name}` of {id} trained a model"))
                .help(format!("it has those of {}", of_file(names()).join(", "))));
        }
        chosen.extend(stages);
    }
    Ok(all.into_iter().filter(|model| stages.is_empty() || chosen.contains(model.stage)).collect())
}

/// Writes one model in place of what is at `folder`, and says what it is.
fn write(cache: &Cache, run: RunId, trained: &Trained<'_>, folder: &Path) -> Result<String, Failure> {
    let object =
        |digest: Digest, what: &str| whole(cache, digest, run, &format!("{what} of `{}`", trained.stage));
    if !trained.weights_are_kept {
        let message =
            format!("the weights that `{}` started from are a file that no stage made", trained.stage);
        return Err(Failure::input(message)
            .help("read the file with a stage of kind `gpt2`, which keeps it, and train from that"));
    }
    let weights = Weights::open(&object(trained.weights, "the weights that training started from")?);
    let weights = weights.map_err(unusable)?;
    let model = ModelFile::read(&object(trained.model, "the trained weights")?, weights.config());
    let model = model.map_err(unusable)?;
    let activation = match trained.activation {
        Some(activation) => activation,
        None => {
            let states = object(trained.hidden, "the states that training read")?;
            Hidden::open(&states).map_err(unusable)?.format().activation
        }
    };
    let origin = BTreeMap::from([
        ("run".to_owned(), run.to_string()),
        ("stage".to_owned(), trained.stage.to_owned()),
        ("model".to_owned(), trained.model.to_string()),
    ]);
    let classifier = Classifier { weights: &weights, model: &model, activation, origin: &origin };
    // The published configuration says `gelu_new`: with another form the base needs one of its own.
    let published = trained.published.as_ref().filter(|_| activation == Activation::GeluNew);
    let mut said = String::new();
    replace(folder, |unfinished| {
        said = match (&model.method, published) {
            (Method::FineTune, _) => {
                classifier.write_checkpoint(unfinished).map_err(unusable)?;
                "a checkpoint for transformers".to_owned()
            }
            (Method::Lora { .. }, Some(base)) => {
                classifier.write_adapter(unfinished, base, trained.lora_dropout).map_err(unusable)?;
                format!("an adapter for peft, of {}", base.name)
            }
            (Method::Lora { .. }, None) => {
                let base = unfinished.join("base");
                fs::create_dir(&base).map_err(|err| cannot_write(&base, &err))?;
                classifier.write_base(&base).map_err(unusable)?;
                let place = path::absolute(folder).map_err(|err| cannot_write(folder, &err))?.join("base");
                let base = Base { name: place.display().to_string(), revision: None };
                classifier.write_adapter(unfinished, &base, trained.lora_dropout).map_err(unusable)?;
                "an adapter for peft, of the model in its folder `base`".to_owned()
            }
        };
        Ok(())
    })?;
    Ok(said)
}

fn unusable(err: StageError) -> Failure {
    let help = err.help_text().map(ToOwned::to_owned);
    let failure = Failure::error(err);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}
