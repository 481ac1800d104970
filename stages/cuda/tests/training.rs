//! Training for GPUs, run with the kernels compiled for the processor, against the processor's.

mod machines;

use machines::{
    Tested, assert_close,
    model::{LENGTHS, hidden, weights},
    tests_of,
};
use pipe_cuda::{launch::Kernels, training::DeviceLearner};
use pipe_stages::{
    contract::StageError,
    data::Hidden,
    gpt2::{
        Activation, LoraTarget, Method, Precision, Weights,
        training::{
            AdamW, Data, Evaluation, Learner, Length, Network, Order, ProcessorLearner, Progress, Step,
            TrainSettings, Watch, read_progress, train_with, write_progress,
        },
    },
};

tests_of! {
    losses_gradients_and_parameters_are_those_of_the_processor,
    a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits,
}

const SETTINGS: TrainSettings = TrainSettings {
    lr: 1e-3,
    min_lr: 1e-4,
    warmup: 2,
    decay: None,
    length: Length::Updates(4),
    batch: 4,
    micro_batch: 3,
    adamw: AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 },
    clip: 1.0,
    dropout: 0.2,
    lora_dropout: 0.3,
    eval_every: 1,
};

/// Everything that a run showed.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    losses: Vec<f64>,
    norms: Vec<f64>,
    validation: Vec<f64>,
    gradients: Vec<Vec<Vec<f32>>>,
    values: Vec<Vec<Vec<f32>>>,
    /// The run as it stood after this update.
    keep: Option<u64>,
    kept: Vec<u8>,
}

impl Watch for Seen {
    fn step(&mut self, step: &Step<'_>) {
        self.losses.push(step.loss);
        self.norms.push(step.gradient_norm);
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) {
        self.validation.push(evaluation.validation.unwrap().loss);
        self.gradients.push(evaluation.gradients.to_vec());
        self.values.push(evaluation.parameters.iter().map(|parameter| parameter.values().to_vec()).collect());
    }

    fn wants_progress(&self) -> bool {
        self.keep.is_some()
    }

    fn reached(&mut self, progress: &Progress, network: &Network) -> Result<(), StageError> {
        if self.keep == Some(progress.step) {
            write_progress(&mut self.kept, network, progress, b"").unwrap();
        }
        Ok(())
    }
}

struct Case {
    weights: Weights,
    hidden: Hidden,
    settings: TrainSettings,
    _folder: tempfile::TempDir,
}

impl Case {
    fn new(activation: Activation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (weights, hidden) = (weights(folder.path()), hidden(folder.path(), activation));
        Self { weights, hidden, settings: SETTINGS, _folder: folder }
    }

    fn without_dropout(self) -> Self {
        Self { settings: TrainSettings { dropout: 0.0, lora_dropout: 0.0, ..SETTINGS }, ..self }
    }

    fn network(&self, method: &Method, train_blocks: usize, precision: Precision) -> Network {
        let mut network =
            Network::new(&self.weights, self.hidden.format(), method.clone(), train_blocks, 5).unwrap();
        // Low-rank B starts at zero, where A has no gradient: begin elsewhere.
        let names: Vec<(String, usize)> = network
            .parameters()
            .iter()
            .filter(|parameter| parameter.name().contains("lora_b"))
            .map(|parameter| (parameter.name().to_owned(), parameter.values().len()))
            .collect();
        for (i, (name, count)) in names.into_iter().enumerate() {
            network.set(&name, &machines::noise(200 + i, count, 0.2));
        }
        network.in_precision(precision)
    }

    fn train(&self, learner: &mut dyn Learner, network: &mut Network, progress: Progress, seen: &mut Seen) {
        let rows = (0..LENGTHS.len() - 2).collect();
        let order = Order::Shuffled { rows, seed: 3 };
        let data = Data { hidden: &self.hidden, order, validation: vec![4, 5] };
        train_with(learner, network, &data, &self.settings, 9, progress, seen).unwrap();
    }
}

fn methods() -> [Method; 2] {
    let targets = LoraTarget::ALL.to_vec();
    [Method::FineTune, Method::Lora { rank: 3, alpha: 2.0, targets }]
}

fn learner<M: Tested>(kernels: &Kernels<M>, network: &Network, progress: &Progress) -> DeviceLearner<M> {
    DeviceLearner::new(kernels, network, &progress.moments).unwrap()
}

/// Relative to the norm of a gradient, how far one of its numbers may lie from the processor's.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::F16 | Precision::Bf16 => 2e-2,
    }
}

fn losses_gradients_and_parameters_are_those_of_the_processor<M: Tested>() {
    let cases = [
        (Precision::F32, Activation::GeluNew, 3, true),
        (Precision::F32, Activation::Gelu, 1, true),
        (Precision::F16, Activation::GeluNew, 2, true),
        (Precision::Bf16, Activation::GeluNew, 2, true),
        (Precision::F32, Activation::GeluNew, 2, false),
        (Precision::F16, Activation::GeluNew, 2, false),
    ];
    for (precision, activation, train_blocks, drops) in cases {
        let case = Case::new(activation);
        let case = if drops { case } else { case.without_dropout() };
        for method in methods() {
            let mut network = case.network(&method, train_blocks, precision);
            let (progress, mut wanted) = (Progress::start(&network), Seen::default());
            case.train(&mut ProcessorLearner::default(), &mut network, progress, &mut wanted);
            for kernels in M::all() {
                let mut network = case.network(&method, train_blocks, precision);
                let (progress, mut seen) = (Progress::start(&network), Seen::default());
                let mut learner = learner(&kernels, &network, &progress);
                case.train(&mut learner, &mut network, progress, &mut seen);
                // There was room once, for those of the first update; the last two rows are held out.
                let is_right = |row| learner.holds(row) == (row < LENGTHS.len() - 2);
                assert!((0..LENGTHS.len()).all(is_right), "states that stay");
                assert_eq!((learner.forget(), learner.holds(0)), (true, false));
                let what =
                    format!("{method:?}, {precision}, {activation}, {train_blocks} blocks, dropout {drops}");
                let (tolerance, of_loss) = (tolerance(precision), f64::from(tolerance(precision)));
                for step in 0..wanted.losses.len() {
                    let near = |a: f64, b: f64| (a - b).abs() <= of_loss * b.abs().max(1.0) * 2.0;
                    assert!(near(seen.losses[step], wanted.losses[step]), "loss of {step}, {what}: {seen:?}");
                    assert!(near(seen.norms[step], wanted.norms[step]), "norm of {step}, {what}");
                    assert!(near(seen.validation[step], wanted.validation[step]), "validation, {what}");
                }
                let norm = wanted.norms[0] as f32;
                let scaled = |gradient: &[f32]| gradient.iter().map(|g| g / norm).collect::<Vec<_>>();
                for (i, (gradient, of_processor)) in
                    seen.gradients[0].iter().zip(&wanted.gradients[0]).enumerate()
                {
                    let (gradient, of_processor) = (scaled(gradient), scaled(of_processor));
                    assert_close::<M>(&gradient, &of_processor, tolerance, &format!("gradient {i}, {what}"));
                }
                assert_values_close::<M>(&seen, &wanted, precision, &what);
            }
        }
    }
}

/// Asserts that parameters are close after every update.
///
/// The optimizer moves a number by about the rate, 1e-3, whatever its gradient: where that is noise,
/// as for the bias of keys, which softmax does not see, the number may be anywhere within that.
fn assert_values_close<M: Tested>(seen: &Seen, wanted: &Seen, precision: Precision, what: &str) {
    for (step, values) in wanted.values.iter().enumerate() {
        let noise = |parameter: usize, i: usize| {
            let is_small =
                |step: usize| wanted.gradients[step][parameter][i].abs() < 1e-4 * wanted.norms[step] as f32;
            precision != Precision::F32 || (0..=step).any(is_small)
        };
        for (parameter, values) in values.iter().enumerate() {
            for (i, (got, wanted)) in seen.values[step][parameter].iter().zip(values).enumerate() {
                let most = if noise(parameter, i) { 2.5e-3 * (step + 1) as f32 } else { 2e-5 * M::SLACK };
                let error = (got - wanted).abs();
                assert!(error <= most, "{i} of {parameter} after {step}, {what}: {got}, not {wanted}");
            }
        }
    }
}

fn a_run_that_goes_on_from_a_checkpoint_ends_with_the_same_bits<M: Tested>() {
    let case = Case::new(Activation::GeluNew);
    for (method, precision) in methods().into_iter().zip([Precision::F32, Precision::F16]) {
        for kernels in M::all() {
            let mut whole = case.network(&method, 2, precision);
            let (progress, mut seen) = (Progress::start(&whole), Seen { keep: Some(2), ..Seen::default() });
            case.train(&mut learner(&kernels, &whole, &progress), &mut whole, progress, &mut seen);

            let mut resumed = case.network(&method, 2, precision);
            let (progress, _) = read_progress(&seen.kept, &mut resumed).unwrap();
            let mut rest = Seen::default();
            case.train(&mut learner(&kernels, &resumed, &progress), &mut resumed, progress, &mut rest);
            assert_eq!(rest.losses, seen.losses[2..]);
            assert_eq!(rest.values, seen.values[2..]);
            assert_eq!(resumed.model_file(), whole.model_file());
        }
    }
}
