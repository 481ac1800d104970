//! Kind `gpt2`: the weights that the other stages start from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::processor::pool;
use crate::{
    contract::{MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    gpt2::{
        Config, HuggingFace, initial_tensor, kernels::vector::Instructions,
        kernels::vector::largest_magnitude, tensor_shapes, write_weights,
    },
};

/// Reads published GPT-2 weights, or draws random ones.
pub struct Gpt2;

/// Parameters of `gpt2`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Where the weights come from: `file` (safetensors with Hugging Face's names, any size of
    /// GPT-2) or `random` (drawn as before GPT-2's training; the stage then has no input).
    pub init: Init,
    /// Attention heads of a block. Default: heads of width 64, as all published sizes have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_head: Option<usize>,
    /// Blocks, at least 1. Only with `init: random`; default 12.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layer: Option<usize>,
    /// Width of the residual stream. Only with `init: random`; default 768.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_embd: Option<usize>,
    /// Positions, so the longest prompt in tokens. Only with `init: random`; default 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// Tokens in the vocabulary. Only with `init: random`; default 50257, GPT-2's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Which random weights. Only with `init: random`; default 0. Training with another seed
    /// leaves it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// A file.
    #[default]
    File,
    /// A generator.
    Random,
}

impl Params {
    /// The shape of random weights.
    fn config(&self) -> Config {
        let default = Config::GPT2_124M;
        let n_embd = self.n_embd.unwrap_or(default.n_embd);
        Config {
            n_layer: self.n_layer.unwrap_or(default.n_layer),
            n_head: self.n_head.unwrap_or((n_embd / 64).max(1)),
            n_embd,
            block_size: self.block_size.unwrap_or(default.block_size),
            vocab_size: self.vocab_size.unwrap_or(default.vocab_size),
        }
    }
}

impl Stage for Gpt2 {
    type Params = Params;
    const KIND: &'static str = "gpt2";
    const SUMMARY: &'static str = "Reads published GPT-2 weights, or draws random ones";
    const VERSION: u32 = 1;

    fn ports(params: &Params) -> Ports {
        let ports = match params.init {
            Init::File => Ports::new().input(
                "file",
                PortType::File,
                "safetensors with Hugging Face's names, such as model.safetensors",
            ),
            Init::Random => Ports::new(),
        };
        ports.output("weights", PortType::Weights, "all parameters, f32, names and shapes checked")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        if params.init == Init::File {
            let of_random = [
                ("n_layer", params.n_layer.is_some()),
                ("n_embd", params.n_embd.is_some()),
                ("block_size", params.block_size.is_some()),
                ("vocab_size", params.vocab_size.is_some()),
                ("seed", params.seed.is_some()),
            ];
            let given = of_random.into_iter().filter(|(_, is_given)| *is_given);
            let mut problems: Vec<_> = given
                .map(|(name, _)| {
                    ParamProblem::new(name, format!("`{name}` means nothing with `init: file`"))
                        .help("leave it out, or set `init: random`")
                })
                .collect();
            if params.n_head == Some(0) {
                problems.push(ParamProblem::new("n_head", "`n_head` must be at least 1"));
            }
            return problems;
        }
        match params.config().check() {
            Ok(()) => Vec::new(),
            Err(("n_head", problem)) => {
                let culprit = if params.n_head.is_some() { "n_head" } else { "n_embd" };
                let help = "set `n_head` to a divisor of `n_embd`";
                vec![ParamProblem::new(culprit, problem).help(help)]
            }
            Err((name, problem)) => vec![ParamProblem::new(name, problem)],
        }
    }

    fn hashed(params: &Params) -> Value {
        if params.init == Init::File {
            return json!({ "init": "file", "n_head": params.n_head });
        }
        let Config { n_layer, n_head, n_embd, block_size, vocab_size } = params.config();
        json!({
            "init": "random",
            "n_layer": n_layer,
            "n_head": n_head,
            "n_embd": n_embd,
            "block_size": block_size,
            "vocab_size": vocab_size,
            "seed": params.seed.unwrap_or_default(),
        })
    }

    fn metrics() -> &'static [MetricDoc] {
        const METRICS: &[MetricDoc] = &[MetricDoc::neutral(
            "parameters",
            "numbers in all tensors, the tied output matrix counted once",
        )];
        METRICS
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let config = match params.init {
            Init::File => convert(cx, params.n_head)?,
            Init::Random => {
                pool(cx)?.install(|| draw(cx, &params.config(), params.seed.unwrap_or_default()))?
            }
        };
        let Config { n_layer, n_head, n_embd, block_size, vocab_size } = config;
        cx.log(format!(
            "n_layer {n_layer}, n_head {n_head}, n_embd {n_embd}, block_size {block_size}, vocab_size {vocab_size}"
        ));
        cx.metric("parameters", config.parameters() as f64);
        Ok(())
    }
}

fn convert(cx: &StageCx<'_>, n_head: Option<usize>) -> Result<Config, StageError> {
    let path = cx.input("file");
    let file = HuggingFace::open(path, n_head)?;
    let instructions = Instructions::best();
    let mut wrong = Vec::new();
    let tensors = tensor_shapes(file.config());
    let parts = tensors.iter().enumerate().map(|(done, (name, _))| {
        let values = file.tensor(name);
        if !largest_magnitude(instructions, &values).is_finite() {
            wrong.push(format!("`{name}`"));
        }
        cx.progress(done as u64 + 1, Some(tensors.len() as u64), "tensors");
        values
    });
    write_weights(cx.output("weights"), file.config(), parts)?;
    if wrong.is_empty() {
        return Ok(*file.config());
    }
    let message =
        format!("`{}` holds values that are no finite numbers in {}", path.display(), wrong.join(", "));
    Err(StageError::new(message).help("get the file again"))
}

fn draw(cx: &StageCx<'_>, config: &Config, seed: u64) -> Result<Config, StageError> {
    let tensors = tensor_shapes(config);
    let parts = tensors.iter().enumerate().map(|(index, (name, shape))| {
        cx.progress(index as u64 + 1, Some(tensors.len() as u64), "tensors");
        initial_tensor(config, seed, index, name, shape.iter().product())
    });
    write_weights(cx.output("weights"), config, parts)?;
    Ok(*config)
}
