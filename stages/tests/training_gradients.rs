//! Gradients of the network: against `dfdx`'s own operations, against finite differences, and
//! whatever the split of a batch.

mod common;

use std::ops::Range;

use common::{
    lab::Lab,
    made_up::{SMALL, numbers, weights},
};
use dfdx::prelude::{Backward, Cpu, Gradients, HasShape, NoneTape, Rank0, SumTo, Tensor, TensorFrom, Trace};
use pipe_stages::{
    data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows},
    gpt2::{
        Activation, Config, LoraTarget, Method, Stock, Weights,
        kernels::dropout::Draws,
        training::{Batch, Network, loss_and_gradients},
    },
};

/// Prompts of these lengths: one position, a whole group of queries, and past it.
const LENGTHS: [usize; 5] = [1, 64, 17, 70, 128];

struct Case {
    weights: Weights,
    hidden: Hidden,
}

/// The small model, of 4 blocks, and made-up states after `blocks` of them.
fn case(activation: Activation, blocks: usize) -> Case {
    let lab = Lab::new();
    let weights = Weights::open(&weights(&lab, &SMALL)).unwrap();
    made_up(&lab, weights, activation, blocks)
}

/// Made-up states after `blocks` blocks of `weights`.
fn made_up(lab: &Lab, weights: Weights, activation: Activation, blocks: usize) -> Case {
    let n_embd = weights.config().n_embd;
    let mut rows = Rows { offsets: vec![0], ..Rows::default() };
    for (row, length) in LENGTHS.into_iter().enumerate() {
        rows.ids.push(format!("row_{row}"));
        rows.lengths.push(length as u32);
        rows.labels.push((row % 2) as u8);
        rows.offsets.push(rows.positions() + length);
    }
    let format = HiddenFormat { blocks, n_embd, activation, dtype: HiddenType::F32 };
    let path = lab.path("hidden");
    let writer = HiddenWriter::create(&path, &rows, format).unwrap();
    for (row, length) in LENGTHS.into_iter().enumerate() {
        writer.write_row(row, &numbers(row as u64, length * n_embd)).unwrap();
    }
    drop(writer);
    Case { hidden: Hidden::open(&path).unwrap(), weights }
}

impl Case {
    fn network(&self, method: Method, train_blocks: usize) -> Network {
        let mut network = Network::new(&self.weights, self.hidden.format(), method, train_blocks, 5).unwrap();
        // With B at zero A would have no gradient.
        let low_rank: Vec<(String, usize)> = network
            .parameters()
            .iter()
            .filter(|parameter| parameter.name().contains("lora_b"))
            .map(|parameter| (parameter.name().to_owned(), parameter.values().len()))
            .collect();
        for (name, size) in low_rank {
            network.set(&name, &numbers(size as u64, size));
        }
        network
    }

    fn gradients(
        &self,
        network: &Network,
        rows: Range<usize>,
        micro_batch: usize,
        draws: Draws,
    ) -> (f64, Vec<Vec<f32>>) {
        let rows: Vec<usize> = rows.collect();
        loss_and_gradients(network, &self.hidden, &rows, micro_batch, draws).unwrap()
    }

    fn states(&self, row: usize) -> Vec<f32> {
        self.hidden.states(&[row]).unwrap().into_f32()
    }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

fn no_dropout() -> Draws {
    Draws::new(1, 0, 0.0, 0.0)
}

fn lora(targets: &[LoraTarget]) -> Method {
    Method::Lora { rank: 3, alpha: 2.0, targets: targets.to_vec() }
}

/// The gradients of stock `dfdx` by name, and the logits.
fn stock(case: &Case, network: &Network, first: usize) -> (Vec<f32>, Stock<Cpu>, Gradients<f32, Cpu>) {
    let device = Cpu::default();
    let format = case.hidden.format();
    let config = *case.weights.config();
    let value = |name: &str| {
        network.parameters().into_iter().find(|parameter| parameter.name() == name).unwrap().values().to_vec()
    };
    let (head, bias) = (value("head.weight"), value("head.bias")[0]);
    let blocks = format.blocks..config.n_layer;
    let stock = Stock::new(&device, &case.weights, format.activation, blocks, &head, bias);
    let (mut gradients, mut logits) = (Gradients::leaky(), Vec::new());
    for (row, length) in LENGTHS.into_iter().enumerate() {
        let label = f32::from(case.hidden.rows().labels[row]);
        let mut x: Tensor<(usize, usize), f32, Cpu, NoneTape> =
            device.tensor((case.states(row), (length, config.n_embd)));
        for block in format.blocks..first {
            x = stock.block(block, x);
        }
        let mut x = x.traced(gradients);
        for block in first..config.n_layer {
            x = stock.block(block, x);
        }
        let z = stock.logit(x);
        assert_eq!(*z.shape(), (1, 1));
        logits.push(z.as_vec()[0]);
        let label: Tensor<(usize, usize), f32, Cpu> = device.tensor((vec![label], (1, 1)));
        let loss = z.bce_with_logits(label).sum::<Rank0, _>() * (1.0 / LENGTHS.len() as f32);
        gradients = loss.backward();
    }
    (logits, stock, gradients)
}

#[test]
fn the_network_agrees_with_stock_dfdx() {
    for (activation, blocks, train_blocks) in [
        (Activation::GeluNew, 2, 2),
        (Activation::GeluNew, 1, 2),
        (Activation::GeluNew, 3, 1),
        (Activation::GeluNew, 0, 4),
        (Activation::Gelu, 1, 2),
    ] {
        let case = case(activation, blocks);
        let network = case.network(Method::FineTune, train_blocks);
        let (wanted, stock, stock_gradients) = stock(&case, &network, 4 - train_blocks);
        let states: Vec<f32> = (0..LENGTHS.len()).flat_map(|row| case.states(row)).collect();
        let logits = network.logits(states, Batch::new(LENGTHS)).unwrap();
        for (row, (z, wanted)) in logits.iter().zip(&wanted).enumerate() {
            assert!((z - wanted).abs() <= 1e-5, "{activation}: logit {row} is {z}, stock {wanted}");
        }
        if activation == Activation::Gelu {
            continue; // dfdx's derivative is wrong there; finite differences hold that form
        }
        let (_, gradients) = case.gradients(&network, 0..LENGTHS.len(), 3, no_dropout());
        for (parameter, gradient) in network.parameters().iter().zip(&gradients) {
            let name = parameter.name();
            let wanted = stock_gradients.get(stock.tensor(name)).as_vec();
            let off = distance(gradient, &wanted);
            assert!(off <= 1e-4 * norm(&wanted), "{activation}: gradient of {name} off by {off:e}");
        }
    }
}

/// Compares each tensor's gradient along a random direction with the change of the loss.
fn compare_with_differences(method: Method, activation: Activation, blocks: usize, draws: Draws) {
    let case = case(activation, blocks);
    let mut network = case.network(method, 2);
    let all = 0..LENGTHS.len();
    let (_, gradients) = case.gradients(&network, all.clone(), 2, draws);
    let parameters: Vec<(String, Vec<f32>)> =
        network.parameters().iter().map(|p| (p.name().to_owned(), p.values().to_vec())).collect();
    for (i, (name, values)) in parameters.iter().enumerate() {
        // Along the gradient itself the slope is its norm; a random part tests the other directions.
        let random = numbers(i as u64 + 100, values.len());
        let of_gradient = norm(&gradients[i]);
        assert!(of_gradient > 0.0, "{name} has a gradient");
        let of_random = norm(&random);
        let direction: Vec<f32> = random
            .iter()
            .zip(&gradients[i])
            .map(|(random, gradient)| {
                (f64::from(*gradient) / of_gradient + 0.5 * f64::from(*random) / of_random) as f32
            })
            .collect();
        let slope: f64 =
            direction.iter().zip(&gradients[i]).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum();
        // Far enough to be seen above rounding, near enough to be straight.
        let reach = (5e-3 / slope).min(1e-2 * norm(values).max(0.5) / norm(&direction));
        let mut at = |sign: f64| {
            let moved: Vec<f32> = values
                .iter()
                .zip(&direction)
                .map(|(value, d)| (f64::from(*value) + sign * reach * f64::from(*d)) as f32)
                .collect();
            network.set(name, &moved);
            case.gradients(&network, all.clone(), 5, draws).0
        };
        let change = (at(1.0) - at(-1.0)) / (2.0 * reach);
        network.set(name, values);
        let tolerance = 1e-2 * slope.abs() + 2e-6;
        assert!((change - slope).abs() <= tolerance, "{name}: the loss changes by {change:e}, not {slope:e}");
    }
}

#[test]
fn fine_tuning_gradients_are_slopes_with_dropout() {
    let draws = Draws::new(1, 2, 0.2, 0.0);
    compare_with_differences(Method::FineTune, Activation::GeluNew, 2, draws);
    compare_with_differences(Method::FineTune, Activation::Gelu, 1, draws);
}

#[test]
fn lora_gradients_are_slopes_with_both_dropouts_and_every_target() {
    let draws = Draws::new(1, 2, 0.2, 0.3);
    compare_with_differences(lora(&LoraTarget::ALL), Activation::GeluNew, 2, draws);
    compare_with_differences(lora(&[LoraTarget::Q, LoraTarget::V]), Activation::GeluNew, 1, draws);
}

#[test]
fn splitting_a_batch_changes_nothing_but_rounding() {
    let case = case(Activation::GeluNew, 2);
    for method in [Method::FineTune, lora(&LoraTarget::ALL)] {
        let network = case.network(method, 2);
        let draws = Draws::new(3, 4, 0.3, 0.3);
        let (whole_loss, whole) = case.gradients(&network, 0..5, 5, draws);
        for micro_batch in [1, 2, 4] {
            let (loss, parts) = case.gradients(&network, 0..5, micro_batch, draws);
            assert!((loss - whole_loss).abs() <= 1e-6, "{loss} {whole_loss}");
            for (parameter, (part, whole)) in network.parameters().iter().zip(parts.iter().zip(&whole)) {
                // The key bias has no true gradient, so its numbers are rounding alone.
                let off = distance(part, whole);
                assert!(off <= 1e-5 * norm(whole) + 1e-7, "{} off by {off:e}", parameter.name());
            }
        }
        let (other, _) = case.gradients(&network, 0..5, 5, Draws::new(3, 5, 0.3, 0.3));
        assert!((other - whole_loss).abs() > 1e-4, "another update draws other masks");
    }
}

fn same_on_any_threads(case: &Case, method: Method, rows: Range<usize>) {
    let network = case.network(method, 2);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.gradients(&network, rows.clone(), 3, Draws::new(3, 4, 0.1, 0.1)))
    };
    let one = on(1);
    for threads in [2, 3, 8] {
        assert!(one == on(threads), "{threads} threads give other bits than one");
    }
}

#[test]
fn threads_change_no_bit() {
    let case = case(Activation::GeluNew, 1);
    same_on_any_threads(&case, Method::FineTune, 0..5);
    same_on_any_threads(&case, lora(&LoraTarget::ALL), 0..5);
}

#[test]
fn threads_change_no_bit_at_the_published_width() {
    let config = Config { n_layer: 2, vocab_size: 8, block_size: 8, ..Config::GPT2_124M };
    let lab = Lab::new();
    let weights = Weights::open(&weights(&lab, &config)).unwrap();
    let case = made_up(&lab, weights, Activation::GeluNew, 0);
    same_on_any_threads(&case, Method::FineTune, 2..4);
    same_on_any_threads(&case, lora(&[LoraTarget::Q, LoraTarget::V]), 2..4);
}
