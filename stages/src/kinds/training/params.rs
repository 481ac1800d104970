//! The parameters that both kinds of training have.

use crate::{
    contract::ParamProblem,
    gpt2::{
        Precision,
        training::{AdamW, Length, TrainSettings},
    },
};

/// Updates of the published run: 60,000 micro-batches, six an update.
const PUBLISHED_UPDATES: u64 = 10_000;

/// Most reviews of an update: those of the published data, many times.
const MOST_ROWS: usize = 1_000_000;

/// The shared parameters, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Shared {
    pub settings: TrainSettings,
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
    pub validation: f64,
    pub precision: Precision,
    pub train_blocks: usize,
}

impl Shared {
    /// How long to train; the published run's length when neither is given.
    pub fn length(epochs: Option<u64>, steps: Option<u64>) -> Length {
        match (epochs, steps) {
            (Some(epochs), _) => Length::Epochs(epochs),
            (None, steps) => Length::Updates(steps.unwrap_or(PUBLISHED_UPDATES)),
        }
    }

    /// Ranges and combinations that the types cannot express.
    pub fn check(&self) -> Vec<ParamProblem> {
        let TrainSettings { lr, min_lr, warmup, decay, batch, micro_batch, adamw, .. } = self.settings;
        let AdamW { betas, epsilon, weight_decay } = adamw;
        let TrainSettings { clip, dropout, eval_every, .. } = self.settings;
        let mut problems = Vec::new();
        let mut wanted = |holds: bool, name: &str, what: String| {
            if !holds {
                problems.push(ParamProblem::new(name, what));
            }
        };
        wanted(lr > 0.0 && lr.is_finite(), "lr", format!("`lr` must be above 0, not {lr}"));
        let floor = (0.0..=lr).contains(&min_lr);
        wanted(floor, "min_lr", format!("`min_lr` must lie between 0 and `lr` {lr}, not be {min_lr}"));
        let length = "exactly one of `epochs` and `steps` can be given".to_owned();
        wanted(self.epochs.is_none() || self.steps.is_none(), "epochs", length);
        wanted(self.epochs != Some(0), "epochs", "`epochs` must be at least 1".into());
        wanted(self.steps != Some(0), "steps", "`steps` must be at least 1".into());
        let end = match (decay, self.settings.length) {
            (Some(decay), _) => Some(("decay", decay)),
            (None, Length::Updates(steps)) => Some(("steps", steps)),
            (None, Length::Epochs(_)) => None,
        };
        if let Some((name, end)) = end {
            wanted(warmup <= end, "warmup", format!("`warmup` {warmup} is longer than `{name}` {end}"));
        }
        for (name, number) in
            [("batch", batch), ("micro_batch", micro_batch), ("train_blocks", self.train_blocks)]
        {
            wanted(number > 0, name, format!("`{name}` must be at least 1"));
        }
        for (name, number) in [("batch", batch), ("micro_batch", micro_batch)] {
            wanted(number <= MOST_ROWS, name, format!("`{name}` can be at most {MOST_ROWS}, not {number}"));
        }
        wanted(eval_every > 0, "eval_every", "`eval_every` must be at least 1".into());
        for (i, beta) in betas.into_iter().enumerate() {
            let what = format!("a beta must lie between 0 and 1, 1 excluded, not be {beta}");
            wanted((0.0..1.0).contains(&beta), &format!("betas.{i}"), what);
        }
        wanted(epsilon > 0.0 && epsilon.is_finite(), "eps", format!("`eps` must be above 0, not {epsilon}"));
        for (name, number) in [("weight_decay", weight_decay), ("clip", clip)] {
            let holds = number >= 0.0 && number.is_finite();
            wanted(holds, name, format!("`{name}` must be at least 0, not {number}"));
        }
        for (name, share) in [("dropout", dropout), ("validation", self.validation)] {
            let what = format!("`{name}` must lie between 0 and 1, 1 excluded, not be {share}");
            wanted((0.0..1.0).contains(&share), name, what);
        }
        problems
    }
}

/// Declares `Params` of a kind that trains: its own fields with their defaults, then the shared ones.
///
/// One flat struct, because `serde(flatten)` and `deny_unknown_fields` exclude each other.
macro_rules! training_params {
    (
        $(#[$doc:meta])*
        pub struct Params {
            lora_dropout: $lora_dropout:expr,
            $($(#[$field_doc:meta])* pub $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct Params {
            $($(#[$field_doc])* pub $field: $type,)*
            /// Blocks to train, the last ones; at least 1. Blocks between the hidden states and
            /// these run frozen.
            pub train_blocks: usize,
            /// Highest learning rate, above 0.
            pub lr: f64,
            /// Learning rate at the end of the decay, from 0 to `lr`.
            pub min_lr: f64,
            /// Updates over which the learning rate rises from 0 to `lr`.
            pub warmup: u64,
            /// Update at which the fall of the learning rate to `min_lr` ends, at least `warmup`;
            /// left out, the last update.
            pub decay: Option<u64>,
            /// Passes over the training reviews, each in an order of its own; instead of `steps`.
            pub epochs: Option<u64>,
            /// Optimizer updates; instead of `epochs`. Without either, the 10,000 of the published run.
            pub steps: Option<u64>,
            /// Reviews of an update.
            pub batch: usize,
            /// Reviews computed together; the gradients of an update's micro-batches add up. Sets
            /// the memory used, not what is computed.
            pub micro_batch: usize,
            /// Decoupled weight decay of tensors with two or more axes, times the learning rate.
            pub weight_decay: f64,
            /// Decay of the optimizer's two moments, each from 0 to below 1.
            pub betas: [f64; 2],
            /// Added to the root of the second moment, above 0.
            pub eps: f64,
            /// Gradients are scaled down to this L2 norm where theirs is larger; 0 for no limit.
            pub clip: f64,
            /// Share of attention probabilities and of the outputs of both branches dropped in the
            /// trained blocks, from 0 to below 1.
            pub dropout: f64,
            /// Share of reviews held out for validation, of each label alike, drawn by the seed; from
            /// 0 to below 1. With 0 the last parameters are kept, else the best by validation loss.
            pub validation: f64,
            /// Updates between evaluations; the last update is always followed by one.
            pub eval_every: u64,
            /// To what the factors of large matrix products are rounded: `f32` (not at all), `f16` or
            /// `bf16`. In the backward pass `f16` rounds to bf16, whose range gradients need. Sums,
            /// trained parameters, their gradients and moments, low-rank additions and all else are
            /// f32. The same on every device, and many times as fast on a GPU; on a processor `bf16`
            /// is faster where docs/gpus.md says so.
            pub precision: $crate::gpt2::Precision,
        }

        impl Default for Params {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    train_blocks: 2,
                    lr: 6e-4,
                    min_lr: 6e-5,
                    warmup: 333,
                    decay: None,
                    epochs: None,
                    steps: None,
                    batch: 12,
                    micro_batch: 4,
                    weight_decay: 0.1,
                    betas: [0.9, 0.95],
                    eps: 1e-8,
                    clip: 5.0,
                    dropout: 0.1,
                    validation: 0.15,
                    eval_every: 200,
                    precision: $crate::gpt2::Precision::F32,
                }
            }
        }

        impl Params {
            fn shared(&self) -> $crate::kinds::training::Shared {
                use $crate::{gpt2::training::{AdamW, TrainSettings}, kinds::training::Shared};
                let lora_dropout: fn(&Self) -> f64 = $lora_dropout;
                let settings = TrainSettings {
                    lr: self.lr,
                    min_lr: self.min_lr,
                    warmup: self.warmup,
                    decay: self.decay,
                    length: Shared::length(self.epochs, self.steps),
                    batch: self.batch,
                    micro_batch: self.micro_batch,
                    adamw: AdamW { betas: self.betas, epsilon: self.eps, weight_decay: self.weight_decay },
                    clip: self.clip,
                    dropout: self.dropout,
                    lora_dropout: lora_dropout(self),
                    eval_every: self.eval_every,
                };
                Shared {
                    settings,
                    epochs: self.epochs,
                    steps: self.steps,
                    validation: self.validation,
                    precision: self.precision,
                    train_blocks: self.train_blocks,
                }
            }
        }
    };
}
pub(in super::super) use training_params;
