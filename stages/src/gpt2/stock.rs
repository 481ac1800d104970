//! GPT-2 in `dfdx`'s own operations, on any of its devices: the reference that faster paths are
//! held against.

use std::{collections::BTreeMap, ops::Range};

use dfdx::prelude::{
    Axes3, Axis, BroadcastTo, Device, HasShape, NoneTape, PermuteTo, PutTape, ReshapeTo, SplitTape, Tape,
    Tensor, TensorFrom, TryMatMul,
};

use super::{Activation, Config, Weights};

/// A matrix `(rows, columns)`.
pub type Matrix<D, T = NoneTape> = Tensor<(usize, usize), f32, D, T>;

/// Some blocks of a GPT-2, its final norm, and a head with one logit; one prompt at a time.
#[derive(Debug)]
pub struct Stock<D: Device<f32>> {
    config: Config,
    activation: Activation,
    device: D,
    tensors: BTreeMap<String, Matrix<D>>,
}

impl<D: Device<f32>> Stock<D> {
    /// The blocks `blocks` of `weights` with a head of `head_weight` `[n_embd]` and `head_bias`.
    pub fn new(
        device: &D,
        weights: &Weights,
        activation: Activation,
        blocks: Range<usize>,
        head_weight: &[f32],
        head_bias: f32,
    ) -> Self {
        let wanted = |name: &str| {
            name.starts_with("ln_f.") || blocks.clone().any(|block| name.starts_with(&format!("h.{block}.")))
        };
        let mut tensors = BTreeMap::new();
        for (name, shape) in weights.tensors().filter(|(name, _)| wanted(name)) {
            let shape = if shape.len() == 2 { (shape[0], shape[1]) } else { (1, shape[0]) };
            tensors.insert(name.to_owned(), device.tensor((weights.tensor(name).to_vec(), shape)));
        }
        tensors.insert("head.weight".into(), device.tensor((head_weight.to_vec(), (head_weight.len(), 1))));
        tensors.insert("head.bias".into(), device.tensor((vec![head_bias], (1, 1))));
        Self { config: *weights.config(), activation, device: device.clone(), tensors }
    }

    /// The tensor called `name`; one of one axis is a row.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn tensor(&self, name: &str) -> &Matrix<D> {
        &self.tensors[name]
    }

    /// The states after `block` from those before, `(T, C)`.
    pub fn block<T: Tape<f32, D>>(&self, block: usize, x: Matrix<D, T>) -> Matrix<D, T> {
        let name = |part: &str| format!("h.{block}.{part}");
        let (time, c) = *x.shape();
        let (h, d) = (self.config.n_head, self.config.n_embd / self.config.n_head);
        let (x, tape) = x.split_tape();
        let n = self.norm(x.clone().put_tape(tape), &name("ln_1"));
        let qkv = self.linear(n, &name("attn.c_attn")); // (T, 3C)
        let part =
            |from: Matrix<D, T>, i: usize| from.slice((.., i * c..(i + 1) * c)).reshape_like(&(time, h, d));
        let k = part(qkv.retaped::<T>(), 1).permute::<_, Axes3<1, 2, 0>>(); // (H, D, T)
        let v = part(qkv.retaped::<T>(), 2).permute::<_, Axes3<1, 0, 2>>(); // (H, T, D)
        let q = part(qkv, 0).permute::<_, Axes3<1, 0, 2>>(); // (H, T, D)
        let scores = q.matmul(k) * (1.0 / (d as f32).sqrt()); // (H, T, T)
        let shape = *scores.shape();
        let scores = scores + self.mask(time).broadcast_like::<_, Axis<0>>(&shape);
        let mixed = scores.softmax::<Axis<2>>().matmul(v); // (H, T, D)
        let mixed = mixed.permute::<_, Axes3<1, 0, 2>>().reshape_like(&(time, c));
        let x = self.linear(mixed, &name("attn.c_proj")) + x;
        let (x, tape) = x.split_tape();
        let n = self.norm(x.clone().put_tape(tape), &name("ln_2"));
        let inner = self.linear(n, &name("mlp.c_fc"));
        let active = match self.activation {
            Activation::GeluNew => inner.fast_gelu(),
            // In dfdx 0.13.0 its value is right, its derivative is not: the density in it has 2/√π
            // where √(2/π) belongs (src/tensor_ops/accurate_gelu/cpu_kernel.rs, `df`).
            Activation::Gelu => inner.accurate_gelu(),
        };
        self.linear(active, &name("mlp.c_proj")) + x
    }

    /// The logit `(1, 1)` of a prompt from its last states, `(T, C)`.
    pub fn logit<T: Tape<f32, D>>(&self, x: Matrix<D, T>) -> Matrix<D, T> {
        let time = x.shape().0;
        let last = x.slice((time - 1..time, ..)).reshape_like(&(1, self.config.n_embd));
        let last = self.norm(last, "ln_f");
        self.linear(last, "head")
    }

    fn linear<T: Tape<f32, D>>(&self, x: Matrix<D, T>, name: &str) -> Matrix<D, T> {
        let y = x.matmul(self.tensor(&format!("{name}.weight")).retaped::<T>());
        self.add_row(y, &format!("{name}.bias"))
    }

    fn norm<T: Tape<f32, D>>(&self, x: Matrix<D, T>, name: &str) -> Matrix<D, T> {
        let shape = *x.shape();
        let weight = self.row::<T>(&format!("{name}.weight")).broadcast_like::<_, Axis<0>>(&shape);
        self.add_row(x.normalize::<Axis<1>>(1e-5) * weight, &format!("{name}.bias"))
    }

    fn add_row<T: Tape<f32, D>>(&self, x: Matrix<D, T>, name: &str) -> Matrix<D, T> {
        let shape = *x.shape();
        x + self.row::<T>(name).broadcast_like::<_, Axis<0>>(&shape)
    }

    fn row<T: Tape<f32, D>>(&self, name: &str) -> Tensor<(usize,), f32, D, T> {
        let row = self.tensor(name);
        let width = row.shape().1;
        row.retaped::<T>().reshape_like(&(width,))
    }

    /// Added to scores, it leaves no future key.
    fn mask(&self, time: usize) -> Matrix<D> {
        let value = |i: usize| if i % time > i / time { -1e9 } else { 0.0 };
        self.device.tensor(((0..time * time).map(value).collect::<Vec<f32>>(), (time, time)))
    }
}
