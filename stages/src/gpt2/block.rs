//! The weights of one block, from wherever they come.

use std::{borrow::Cow, sync::Arc};

use super::{
    Config, LoraTarget, Method, ModelFile, Precision, Weights,
    kernels::{
        gemm::{Factor, Matrix, MatrixMut, Target, Threads, multiply},
        matrix_unit::{Packed, PackingRoom},
        rounding::round,
    },
};

/// A vector for each of a layer norm's two parts, `[n_embd]`.
#[derive(Debug, Clone)]
pub struct Norm<'a> {
    /// Factors.
    pub weight: Cow<'a, [f32]>,
    /// Summands.
    pub bias: Cow<'a, [f32]>,
}

/// An affine map of rows.
#[derive(Debug, Clone)]
pub struct Linear<'a> {
    weight: Cow<'a, [f32]>,
    /// `[out]`.
    pub bias: Cow<'a, [f32]>,
    /// What the numbers of the weight are rounded to.
    precision: Precision,
    packed: Option<Arc<Packed>>,
}

impl<'a> Linear<'a> {
    /// `x·weight + bias` for `weight` `[in, out]`, row-major, and `bias` `[out]`.
    pub fn new(weight: Cow<'a, [f32]>, bias: Cow<'a, [f32]>) -> Self {
        Self { weight, bias, precision: Precision::F32, packed: None }
    }

    /// `[in, out]`, row-major.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// The weight as a factor of products.
    pub fn factor(&self) -> Factor<'_> {
        Factor::new(self.matrix(), self.precision, self.packed.as_deref())
    }

    fn matrix(&self) -> Matrix<'_> {
        let outputs = self.bias.len();
        Matrix::new(&self.weight, self.weight.len() / outputs, outputs)
    }

    /// The weight, to change it.
    fn weight_mut(&mut self) -> &mut [f32] {
        (self.precision, self.packed) = (Precision::F32, None);
        self.weight.to_mut()
    }
}

/// The weights of one block.
#[derive(Debug, Clone)]
pub struct BlockWeights<'a> {
    /// The norm before attention.
    pub ln_1: Norm<'a>,
    /// Queries, keys and values: `[n_embd, 3·n_embd]`, columns q | k | v.
    pub attention: Linear<'a>,
    /// The projection after attention: `[n_embd, n_embd]`.
    pub projection: Linear<'a>,
    /// The norm before the MLP.
    pub ln_2: Norm<'a>,
    /// The MLP's first layer: `[n_embd, 4·n_embd]`.
    pub expand: Linear<'a>,
    /// The MLP's second layer: `[4·n_embd, n_embd]`.
    pub contract: Linear<'a>,
}

impl<'a> BlockWeights<'a> {
    /// Takes each tensor from `tensor`, called with names such as `attn.c_attn.weight`.
    pub fn from_tensors(tensor: impl Fn(&str) -> Cow<'a, [f32]>) -> Self {
        let norm = |name: &str| Norm {
            weight: tensor(&format!("{name}.weight")),
            bias: tensor(&format!("{name}.bias")),
        };
        let linear =
            |name: &str| Linear::new(tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
        Self {
            ln_1: norm("ln_1"),
            attention: linear("attn.c_attn"),
            projection: linear("attn.c_proj"),
            ln_2: norm("ln_2"),
            expand: linear("mlp.c_fc"),
            contract: linear("mlp.c_proj"),
        }
    }

    /// Block `block` of `weights`, counted from 0.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    pub fn of(weights: &'a Weights, block: usize) -> Self {
        Self::from_tensors(|name| Cow::Borrowed(weights.tensor(&format!("h.{block}.{name}"))))
    }

    /// Block `block` of `weights` as `model` changed it: replaced, or with the LoRA products added
    /// to the matrices.
    ///
    /// # Panics
    ///
    /// If there is no such block.
    pub fn of_model(weights: &'a Weights, model: &'a ModelFile, block: usize) -> Self {
        let name = |tensor: &str| format!("h.{block}.{tensor}");
        match &model.method {
            Method::FineTune => Self::from_tensors(|tensor| {
                let name = name(tensor);
                Cow::Borrowed(model.tensor(&name).unwrap_or_else(|| weights.tensor(&name)))
            }),
            Method::Lora { rank, alpha, targets } => {
                let mut merged = Self::of(weights, block);
                for target in targets {
                    let letter = target.letter();
                    let a = model.tensor(&name(&format!("lora_a_{letter}")));
                    let b = model.tensor(&name(&format!("lora_b_{letter}")));
                    if let (Some(a), Some(b)) = (a, b) {
                        merged.add_lora(*target, a, b, *rank, *alpha);
                    }
                }
                merged
            }
        }
    }

    /// With its four matrices rounded to `precision`.
    #[must_use]
    pub fn rounded(mut self, precision: Precision) -> Self {
        if precision != Precision::F32 {
            for linear in self.matrices_mut() {
                round(precision, linear.weight_mut());
                linear.precision = precision;
            }
        }
        self
    }

    /// With its four matrices packed for the matrix unit as far as there is `room`: in f32 half a time more
    /// memory, and products of 256 rows take two thirds of the time.
    #[must_use]
    pub fn packed(mut self, room: &mut PackingRoom) -> Self {
        for linear in self.matrices_mut() {
            let (matrix, precision) = (linear.matrix(), linear.precision);
            let has_room = room.take(Packed::bytes(matrix, precision));
            linear.packed = has_room.then(|| Arc::new(Packed::new(matrix, precision)));
        }
        self
    }

    fn matrices_mut(&mut self) -> [&mut Linear<'a>; 4] {
        let Self { attention, projection, expand, contract, .. } = self;
        [attention, projection, expand, contract]
    }

    /// Adds `alpha / rank · A·B` to the matrix that `target` names; A is `[n_embd, rank]`, B is
    /// `[rank, n_embd]`.
    ///
    /// # Panics
    ///
    /// If A or B has another size.
    pub fn add_lora(&mut self, target: LoraTarget, a: &[f32], b: &[f32], rank: usize, alpha: f64) {
        let width = self.ln_1.weight.len();
        let (a, b) = (Matrix::new(a, width, rank), Matrix::new(b, rank, width));
        let scale = (alpha / rank as f64) as f32;
        let sum = match target {
            LoraTarget::O => MatrixMut::new(self.projection.weight_mut(), width, width),
            LoraTarget::Q | LoraTarget::K | LoraTarget::V => {
                let part = target as usize;
                MatrixMut::new(self.attention.weight_mut(), width, 3 * width)
                    .columns(part * width..(part + 1) * width)
            }
        };
        multiply(Threads::All, scale, a, b, Target::Add, sum);
    }
}

/// The norm after the last block, as `model` changed it, if there is one.
pub fn final_norm<'a>(weights: &'a Weights, model: Option<&'a ModelFile>) -> Norm<'a> {
    let tensor = |name: &str| {
        let trained = model.and_then(|model| model.tensor(name));
        Cow::Borrowed(trained.unwrap_or_else(|| weights.tensor(name)))
    };
    Norm { weight: tensor("ln_f.weight"), bias: tensor("ln_f.bias") }
}

/// The blocks from `first` (counted from 0) to the last, as `model` changed them, if there is one.
pub fn blocks_from<'a>(
    weights: &'a Weights,
    model: Option<&'a ModelFile>,
    first: usize,
) -> Vec<BlockWeights<'a>> {
    let Config { n_layer, .. } = *weights.config();
    (first..n_layer)
        .map(|block| match model {
            Some(model) => BlockWeights::of_model(weights, model, block),
            None => BlockWeights::of(weights, block),
        })
        .collect()
}
