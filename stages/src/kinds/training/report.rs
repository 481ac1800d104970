//! What a training run reports to its stage.

use crate::{
    checkpoint::Checkpoint,
    contract::{Event, StageCx, StageError, read_events},
    gpt2::training::{Evaluation, Network, Progress, Step, Watch, read_progress, write_progress},
};

/// Bins of a histogram.
const BINS: usize = 40;

/// Turns what the loop does into metrics and progress, and keeps checkpoints.
///
/// A checkpoint holds all that was reported until then, and a run that goes on reports it again:
/// every attempt's events are those of the whole run.
pub(super) struct Report<'a> {
    cx: &'a StageCx<'a>,
    /// The metrics and histograms reported so far, one JSON object a line.
    history: Vec<u8>,
    checkpoint: Checkpoint<'a>,
}

impl<'a> Report<'a> {
    /// `decides_bits` is what of the machine a checkpoint must agree with to be gone on from.
    pub fn new(cx: &'a StageCx<'a>, decides_bits: String) -> Self {
        Self { cx, history: Vec::new(), checkpoint: Checkpoint::new(cx, decides_bits) }
    }

    /// Where to go on from: the checkpoint, if there is one, else the start.
    pub fn resume(&mut self, network: &mut Network) -> Progress {
        let Some(bytes) = self.checkpoint.read() else { return Progress::start(network) };
        let Some((progress, history)) = read_progress(&bytes, network) else {
            self.checkpoint.starts_over("the checkpoint is of another network");
            return Progress::start(network);
        };
        read_events(&history).0.iter().for_each(|event| send(self.cx, event));
        self.history = history;
        self.checkpoint.goes_on(&format!("update {}", progress.step));
        progress
    }

    fn report(&mut self, event: &Event) {
        send(self.cx, event);
        serde_json::to_writer(&mut self.history, event).expect("an event is plain JSON");
        self.history.push(b'\n');
    }

    fn metric(&mut self, name: &str, step: u64, value: f64) {
        self.report(&Event::Metric { name: name.into(), step: Some(step), value: Some(value) });
    }
}

/// Reports a metric or a histogram at a step.
fn send(cx: &StageCx<'_>, event: &Event) {
    match event {
        Event::Metric { name, step: Some(step), value: Some(value) } => cx.metric_at(name, *step, *value),
        Event::Histogram { name, step: Some(step), edges, counts } => {
            cx.histogram_at(name, *step, edges, counts);
        }
        _ => {}
    }
}

impl Watch for Report<'_> {
    fn step(&mut self, step: &Step<'_>) {
        self.metric("loss", step.number, step.loss);
        self.metric("learning_rate", step.number, step.learning_rate);
        self.metric("gradient_norm", step.number, step.gradient_norm);
        self.cx.progress(step.number, Some(step.of), "updates");
    }

    fn evaluation(&mut self, evaluation: &Evaluation<'_>) {
        let number = evaluation.number;
        if let Some(validation) = evaluation.validation {
            self.metric("validation_loss", number, validation.loss);
            self.metric("validation_accuracy", number, validation.accuracy);
        }
        for (parameter, gradient) in evaluation.parameters.iter().zip(evaluation.gradients) {
            for (what, values) in [("parameter", parameter.values()), ("gradient", gradient)] {
                let name = format!("tensor.{}.{what}", parameter.name());
                self.metric(&format!("{name}_norm"), number, norm(values));
                let (edges, counts) = histogram(values);
                self.report(&Event::Histogram { name, step: Some(number), edges, counts });
            }
        }
    }

    fn note(&mut self, text: &str) {
        self.cx.log(text);
    }

    fn wants_progress(&self) -> bool {
        self.checkpoint.is_due()
    }

    fn reached(&mut self, progress: &Progress, network: &Network) -> Result<(), StageError> {
        let (history, folder) = (&self.history, self.cx.checkpoint());
        self.checkpoint.write(&format!("update {}", progress.step), |file| {
            write_progress(file, network, progress, history)
                .map_err(|err| StageError::io("write to", folder, err))
        });
        Ok(())
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt()
}

/// Counts in bins of equal width from the least to the largest value; where all are equal, in
/// one bin around it.
fn histogram(values: &[f32]) -> (Vec<f64>, Vec<u64>) {
    let (low, high) = values
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let (low, high) = (f64::from(low), f64::from(high));
    if low >= high {
        let margin = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
        return (vec![low - margin, low + margin], vec![values.len() as u64]);
    }
    let width = (high - low) / BINS as f64;
    let edges = (0..=BINS).map(|bin| if bin == BINS { high } else { low + bin as f64 * width }).collect();
    let mut counts = vec![0; BINS];
    for value in values {
        let bin = ((f64::from(*value) - low) / width) as usize;
        counts[bin.min(BINS - 1)] += 1;
    }
    (edges, counts)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;
    use crate::{
        contract::{Device, Job},
        data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows},
        gpt2::{
            Activation, Config, Method, Weights, tensor_shapes,
            training::{AdamW, Data, Length, Order, Outcome, TrainSettings, train},
            write_weights,
        },
    };

    const CONFIG: Config = Config { n_layer: 1, n_head: 2, n_embd: 8, block_size: 8, vocab_size: 4 };
    const SETTINGS: TrainSettings = TrainSettings {
        lr: 1e-2,
        min_lr: 1e-3,
        warmup: 2,
        decay: None,
        length: Length::Updates(9),
        batch: 3,
        micro_batch: 2,
        adamw: AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 },
        clip: 1.0,
        dropout: 0.1,
        lora_dropout: 0.0,
        eval_every: 2,
    };

    fn noise(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + 13) % 101) as f32 / 101.0 - 0.5).collect()
    }

    fn inputs(folder: &Path) -> (Weights, Hidden) {
        let path = folder.join("weights");
        let sizes = tensor_shapes(&CONFIG).into_iter().map(|(_, shape)| shape.iter().product());
        write_weights(&path, &CONFIG, sizes.map(noise)).unwrap();
        let weights = Weights::open(&path).unwrap();
        let rows = Rows {
            ids: (0..6).map(|row| row.to_string()).collect(),
            lengths: vec![3; 6],
            labels: vec![0, 1, 0, 1, 0, 1],
            offsets: (0..=6).map(|row| 3 * row).collect(),
        };
        let (activation, dtype) = (Activation::GeluNew, HiddenType::F32);
        let format = HiddenFormat { blocks: 0, n_embd: CONFIG.n_embd, activation, dtype };
        let path = folder.join("hidden");
        let writer = HiddenWriter::create(&path, &rows, format).unwrap();
        (0..6).for_each(|row| writer.write_row(row, &noise(3 * 8 + row)[row..]).unwrap());
        (weights, Hidden::open(&path).unwrap())
    }

    /// Reports, with a checkpoint after every update before `at`, where a kill stops it.
    struct Killed<'a> {
        report: Report<'a>,
        at: u64,
    }

    impl Watch for Killed<'_> {
        fn step(&mut self, step: &Step<'_>) {
            self.report.step(step);
        }
        fn evaluation(&mut self, evaluation: &Evaluation<'_>) {
            self.report.evaluation(evaluation);
        }
        fn reached(&mut self, progress: &Progress, network: &Network) -> Result<(), StageError> {
            if progress.step == self.at {
                return Err(StageError::new("killed"));
            }
            if self.report.wants_progress() { self.report.reached(progress, network) } else { Ok(()) }
        }
    }

    /// One attempt of a stage whose checkpoints lie in `folder`; returns its metrics and histograms.
    fn attempt(folder: &Path, killed_at: u64) -> (Option<Outcome>, Vec<Event>) {
        let checkpoint = folder.join("checkpoint");
        fs::create_dir_all(&checkpoint).unwrap();
        let job = Job {
            stage: "s".into(),
            key: "a run".into(),
            kind: "fine_tune".into(),
            version: 1,
            params: serde_json::Value::Null,
            seed: 1,
            inputs: [].into(),
            outputs: [].into(),
            events: folder.join("events"),
            checkpoint,
            device: Device::Cpu,
            threads: 1,
        };
        let (weights, hidden) = inputs(folder);
        let mut network = Network::new(&weights, hidden.format(), Method::FineTune, 1, 1).unwrap();
        let order = Order::Shuffled { rows: vec![0, 1, 2, 3], seed: 1 };
        let data = Data { hidden: &hidden, order, validation: vec![4, 5] };
        let every = if killed_at == 0 { Duration::from_hours(1) } else { Duration::ZERO };
        let cx = StageCx::new(&job).unwrap().with_checkpoint_every(every);
        let mut report = Report::new(&cx, "cpu".into());
        let progress = report.resume(&mut network);
        let mut watch = Killed { report, at: killed_at };
        let outcome = train(&mut network, &data, &SETTINGS, 1, progress, &mut watch).ok();
        drop(watch);
        drop(cx);
        let (mut events, _) = read_events(&fs::read(&job.events).unwrap());
        events.retain(|event| matches!(event, Event::Metric { .. } | Event::Histogram { .. }));
        (outcome, events)
    }

    #[test]
    fn a_run_that_goes_on_reports_everything_once() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, wanted) = attempt(folder.path(), 0);
        assert!(!folder.path().join("checkpoint/progress").exists());
        for killed_at in [2, 6, 7] {
            let folder = tempfile::tempdir().unwrap();
            let (cut, before) = attempt(folder.path(), killed_at);
            assert!(cut.is_none() && wanted.starts_with(&before));
            let (resumed, events) = attempt(folder.path(), 0);
            let kept =
                |outcome: Option<Outcome>| outcome.map(|outcome| (outcome.best_step, outcome.validation));
            assert_eq!(kept(resumed), kept(whole));
            let updates = |positions: u64| positions / (3 * SETTINGS.batch as u64);
            assert_eq!(updates(resumed.unwrap().positions), 9 - (killed_at - 1));
            assert!(events == wanted, "killed at {killed_at}");
        }
    }

    #[test]
    fn every_value_is_counted_once_the_largest_in_the_last_bin() {
        let values: Vec<f32> = (0..=400).map(|value| value as f32 / 100.0 - 1.0).collect();
        let (edges, counts) = histogram(&values);
        assert_eq!((edges.len(), counts.len()), (BINS + 1, BINS));
        assert_eq!(counts.iter().sum::<u64>(), 401);
        assert_eq!((edges[0], edges[BINS]), (-1.0, 3.0));
        assert_eq!(counts[BINS - 1], 11);
    }

    #[test]
    fn equal_values_lie_in_one_bin_around_them() {
        assert_eq!(histogram(&[2.0; 3]), (vec![1.0, 3.0], vec![3]));
        assert_eq!(histogram(&[0.0]), (vec![-1.0, 1.0], vec![1]));
    }
}
