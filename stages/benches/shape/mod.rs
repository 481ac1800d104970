//! What the benchmarks share: the 124M shape with random numbers, and the speed it is held against.

use std::{borrow::Cow, path::Path, time::Instant};

use pipe_stages::{
    contract::StageError,
    data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows},
    gpt2::{
        Activation, BlockWeights, Config, Method, Precision, Weights,
        kernels::{
            gemm::{Factor, Matrix, MatrixMut, Target, Threads, multiply},
            matrix_unit::PackingRoom,
            rounding::round,
        },
        tensor_shapes,
        training::{AdamW, Data, Length, Network, Order, Progress, Step, TrainSettings, Watch, train},
        write_weights,
    },
};

/// The published shape.
pub const CONFIG: Config = Config::GPT2_124M;
/// Two of its blocks and hardly any vocabulary: what the trained part needs.
pub const TOP: Config = Config { n_layer: 2, vocab_size: 8, block_size: 8, ..Config::GPT2_124M };

/// Multiplications and additions of 12 blocks on prompts of `tokens` tokens: matrices, and
/// attention with the keys needed.
pub fn operations(prompts: usize, tokens: usize) -> f64 {
    let (c, tokens) = (CONFIG.n_embd as f64, tokens as f64);
    let matrices = 2.0 * 12.0 * c * c * tokens;
    let attention = 2.0 * 2.0 * c * tokens * (tokens + 1.0) / 2.0;
    prompts as f64 * CONFIG.n_layer as f64 * (matrices + attention)
}

/// Billions of operations a second of one large product in `precision` on all threads.
pub fn product_speed(precision: Precision) -> f64 {
    const SIZE: usize = 1536;
    thread_local! {
        static FACTOR: Vec<f32> = {
            let mut factor = noise(1, SIZE * SIZE, 1.0);
            round(Precision::Bf16, &mut factor);
            factor
        };
    }
    FACTOR.with(|factor| {
        let mut product = vec![0.0; SIZE * SIZE];
        let matrix = Matrix::new(factor, SIZE, SIZE);
        let start = Instant::now();
        let target = MatrixMut::new(&mut product, SIZE, SIZE);
        let second = Factor::new(matrix, precision, None);
        multiply(Threads::All, 1.0, matrix, second, Target::Replace, target);
        2.0 * (SIZE * SIZE * SIZE) as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}

/// The blocks of the published shape, ready for many products in `precision`.
pub fn blocks(precision: Precision) -> Vec<BlockWeights<'static>> {
    let mut room = PackingRoom::new(precision);
    let ready = |block| random_block(block).rounded(precision).packed(&mut room);
    (0..CONFIG.n_layer as u32).map(ready).collect()
}

fn random_block(block: u32) -> BlockWeights<'static> {
    let (c, inner) = (CONFIG.n_embd, CONFIG.n_inner());
    BlockWeights::from_tensors(|name| {
        Cow::Owned(match name {
            "ln_1.weight" | "ln_2.weight" => vec![1.0; c],
            "attn.c_attn.bias" => vec![0.0; 3 * c],
            "mlp.c_fc.bias" => vec![0.0; inner],
            "attn.c_attn.weight" => noise(block, 3 * c * c, 0.02),
            "attn.c_proj.weight" => noise(block + 100, c * c, 0.02),
            "mlp.c_fc.weight" => noise(block + 200, inner * c, 0.02),
            "mlp.c_proj.weight" => noise(block + 300, inner * c, 0.02),
            _ => vec![0.0; c],
        })
    })
}

/// Writes weights of the shape [`TOP`] and hidden states of one prompt a length to `folder`.
pub fn training_inputs(folder: &Path, lengths: &[usize]) -> Result<(Weights, Hidden), StageError> {
    let path = folder.join("weights");
    let parts = tensor_shapes(&TOP).into_iter().enumerate().map(|(i, (name, shape))| {
        let size = shape.iter().product();
        let is_gain = name.ends_with("ln_1.weight") || name.ends_with("ln_2.weight");
        if is_gain { vec![1.0; size] } else { noise(i as u32, size, 0.02) }
    });
    write_weights(&path, &TOP, parts)?;
    let weights = Weights::open(&path)?;
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    let rows = Rows {
        ids: (0..lengths.len()).map(|row| row.to_string()).collect(),
        lengths: lengths.iter().map(|length| *length as u32).collect(),
        labels: (0..lengths.len()).map(|row| (row % 2) as u8).collect(),
        offsets,
    };
    let (activation, dtype) = (Activation::GeluNew, HiddenType::F16);
    let format = HiddenFormat { blocks: 0, n_embd: TOP.n_embd, activation, dtype };
    let path = folder.join("hidden");
    let writer = HiddenWriter::create(&path, &rows, format)?;
    for (row, length) in lengths.iter().enumerate() {
        writer.write_row(row, &noise(row as u32, length * TOP.n_embd, 1.0))?;
    }
    drop(writer);
    Ok((weights, Hidden::open(&path)?))
}

/// How an update is made.
pub struct Update {
    pub precision: Precision,
    pub method: Method,
    pub micro_batch: usize,
    pub dropout: f64,
}

/// The fastest of `count` updates on all rows of `hidden`, in seconds, after one that is not counted.
pub fn fastest_update(
    weights: &Weights,
    hidden: &Hidden,
    update: Update,
    count: u64,
) -> Result<f64, StageError> {
    let rows = hidden.rows().len();
    let settings = TrainSettings {
        lr: 1e-4,
        min_lr: 1e-5,
        warmup: 1,
        decay: None,
        length: Length::Updates(count + 1),
        batch: rows,
        micro_batch: update.micro_batch,
        adamw: AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 },
        clip: 5.0,
        dropout: update.dropout,
        lora_dropout: 0.0,
        eval_every: 1000,
    };
    let network = Network::new(weights, hidden.format(), update.method, TOP.n_layer, 1)?;
    let mut network = network.in_precision(update.precision);
    let order = Order::Given(vec![(0..rows).collect()]);
    let data = Data { hidden, order, validation: Vec::new() };
    let mut fastest = Fastest { started: Instant::now(), seconds: f64::INFINITY };
    let progress = Progress::start(&network);
    train(&mut network, &data, &settings, 1, progress, &mut fastest)?;
    Ok(fastest.seconds)
}

/// The fastest update so far but for the first, in seconds.
struct Fastest {
    started: Instant,
    seconds: f64,
}

impl Watch for Fastest {
    fn step(&mut self, step: &Step<'_>) {
        if step.number > 1 {
            self.seconds = self.seconds.min(self.started.elapsed().as_secs_f64());
        }
        self.started = Instant::now();
    }
}

/// Numbers spread evenly over `±1.7·scale`.
pub fn noise(seed: u32, length: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state as f32 / u32::MAX as f32 - 0.5) * 3.4 * scale
    };
    (0..length).map(|_| next()).collect()
}
