//! What `fine_tune` and `lora` share: parameters, the run, its reports.

mod params;
mod report;

pub(super) use params::{Shared, training_params};

use std::time::Instant;

use report::Report;

use super::device::Device;
use crate::{
    contract::{MetricDoc, PortType, Ports, StageCx, StageError},
    data::Hidden,
    gpt2::{
        Method, Weights,
        training::{Data, Network, Order, Split, train_with, trainable_parameters},
    },
};

/// The ports of a kind that trains.
pub(super) fn ports() -> Ports {
    Ports::new()
        .input("hidden", PortType::Hidden, "states below the blocks to train, with labels")
        .input("weights", PortType::Weights, "the model that the states come from")
        .output("model", PortType::Model, "what training changed or added to the weights")
}

/// The metrics of a kind that trains.
pub(super) const METRICS: &[MetricDoc] = &[
    MetricDoc::lower("loss", "mean binary cross-entropy of the rows of an update, with dropout"),
    MetricDoc::neutral("learning_rate", "learning rate of an update"),
    MetricDoc::neutral("gradient_norm", "L2 norm of all gradients of an update, before clipping"),
    MetricDoc::lower("validation_loss", "mean binary cross-entropy on the rows held out"),
    MetricDoc::higher("validation_accuracy", "share of right answers on the rows held out"),
    MetricDoc::neutral("best_step", "updates after which the model was kept"),
    MetricDoc::lower("best_validation_loss", "validation loss of the model that was kept"),
    MetricDoc::higher("best_validation_accuracy", "validation accuracy of the model that was kept"),
    MetricDoc::neutral("trainable_parameters", "numbers that training may change"),
    MetricDoc::neutral("training_rows", "reviews trained on"),
    MetricDoc::neutral("validation_rows", "reviews held out"),
    MetricDoc::neutral("updates", "optimizer updates in all"),
    MetricDoc::neutral("tensor.*.*.parameter_norm", "L2 norm of a tensor at an evaluation"),
    MetricDoc::neutral("tensor.*.*.*.parameter_norm", "L2 norm of a tensor at an evaluation"),
    MetricDoc::neutral("tensor.*.*.*.*.parameter_norm", "L2 norm of a tensor at an evaluation"),
    MetricDoc::neutral("tensor.*.*.*.*.*.parameter_norm", "L2 norm of a tensor at an evaluation"),
    MetricDoc::neutral("tensor.*.*.gradient_norm", "L2 norm of its gradient in the last update"),
    MetricDoc::neutral("tensor.*.*.*.gradient_norm", "L2 norm of its gradient in the last update"),
    MetricDoc::neutral("tensor.*.*.*.*.gradient_norm", "L2 norm of its gradient in the last update"),
    MetricDoc::neutral("tensor.*.*.*.*.*.gradient_norm", "L2 norm of its gradient in the last update"),
];

/// Trains by `method` and writes the model.
pub(super) fn run(cx: &StageCx<'_>, method: &Method, shared: &Shared) -> Result<(), StageError> {
    let hidden = Hidden::open(cx.input("hidden"))?;
    let weights = Weights::open(cx.input("weights"))?;
    let device = Device::open(cx, shared.precision)?;
    device.run(|| run_in_pool(cx, &device, &hidden, &weights, method, shared))
}

fn run_in_pool(
    cx: &StageCx<'_>,
    device: &Device,
    hidden: &Hidden,
    weights: &Weights,
    method: &Method,
    shared: &Shared,
) -> Result<(), StageError> {
    let rows = hidden.rows();
    if let Some(row) = (0..rows.len()).find(|row| rows.range(*row).is_empty()) {
        let message = format!("the prompt of review `{}` is empty", rows.ids[row]);
        return Err(StageError::new(message).help("give `tokenize` a `prefix` or a `suffix`"));
    }
    let split = Split::new(&rows.labels, shared.validation, cx.seed());
    if split.training.is_empty() {
        let message = format!("of {} reviews none is left to train on", rows.len());
        return Err(StageError::new(message).help("feed more reviews or lower `validation`"));
    }
    let settings = &shared.settings;
    let updates = settings.updates(split.training.len());
    cx.metric("training_rows", split.training.len() as f64);
    cx.metric("validation_rows", split.validation.len() as f64);
    cx.metric("updates", updates as f64);
    if settings.decay.is_none() && settings.warmup > updates {
        let warmup = settings.warmup;
        cx.log(format!(
            "the warmup of {warmup} updates is longer than the run of {updates}: `lr` is not reached"
        ));
    }
    let train_blocks = shared.train_blocks;
    let mut network = Network::new(weights, hidden.format(), method.clone(), train_blocks, cx.seed())?
        .in_precision(shared.precision);
    let trainable = trainable_parameters(weights.config(), method, train_blocks);
    cx.metric("trainable_parameters", trainable as f64);
    let order = Order::Shuffled { rows: split.training, seed: cx.seed() };
    let data = Data { hidden, order, validation: split.validation };
    let mut report = Report::new(cx, device.decides_bits());
    let progress = report.resume(&mut network);
    let started = Instant::now();
    let mut learner = device.learner(&network, &progress.moments)?;
    let learner = learner.as_mut();
    let outcome = train_with(learner, &mut network, &data, settings, cx.seed(), progress, &mut report)?;
    cx.metric("best_step", outcome.best_step as f64);
    cx.optional_metric("best_validation_loss", outcome.validation.map(|validation| validation.loss));
    cx.optional_metric("best_validation_accuracy", outcome.validation.map(|validation| validation.accuracy));
    let seconds = started.elapsed().as_secs_f64();
    cx.log(format!(
        "{:.0} tokens a second, evaluations included",
        outcome.positions as f64 / seconds.max(1e-9)
    ));
    network.model_file().write(cx.output("model"))
}
