//! The arguments of verbs that load a pipeline.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Failure, Globals};
use crate::pipeline::{LoadOptions, Pipeline, PipelineErrors, load};

/// A pipeline file and what is laid over it.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Lay a profile of the file over it; several are laid left to right
    #[arg(long = "profile", short = 'p', value_name = "PROFILE")]
    pub profiles: Vec<String>,
    /// Set a value after all profiles: `lora.rank=16` (a parameter), `vars.train=100`, `seed=7`,
    /// `stages.lora.resources.cpus=2`; the value is YAML, an empty one removes
    #[arg(long = "set", short = 's', value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
}

impl PipelineArgs {
    /// What the pipeline is loaded with.
    pub fn options(&self, globals: &Globals) -> LoadOptions {
        LoadOptions {
            file: self.file.clone(),
            profiles: self.profiles.clone(),
            sets: self.sets.clone(),
            root: globals.named_root().map(Path::to_path_buf),
            ..LoadOptions::default()
        }
    }

    /// Loads and checks the pipeline, of which the files of stages that `selected` leaves out may be missing.
    pub fn load_for(
        &self,
        globals: &Globals,
        selected: impl FnOnce(&Pipeline) -> Result<Option<BTreeSet<String>>, Failure>,
    ) -> Result<Pipeline, PipelineErrors> {
        let options = LoadOptions { may_lack_files: true, ..self.options(globals) };
        let pipeline = load(&options, pipe_stages::kinds())?;
        // What is wrong with the selection is told when it is used.
        if let Ok(selected) = selected(&pipeline) {
            let lacking = |errors| PipelineErrors { file: self.file.clone(), ..errors };
            pipeline.has_files_for(selected.as_ref()).map_err(lacking)?;
        }
        Ok(pipeline)
    }

    /// Loads and checks the pipeline against the built-in kinds.
    pub fn load(&self, globals: &Globals) -> Result<Pipeline, Failure> {
        Ok(load(&self.options(globals), pipe_stages::kinds())?)
    }
}
