//! The forward pass of frozen blocks, as [`pipe_stages::gpt2::Forward`] does it on the processor.
//!
//! The residual stream is f32. A product's bias is added by the kernel that reads the product next,
//! so that no pass over memory is for a bias alone; the norms add the sum of the biases that the stream
//! lacks, see [`Blocks`]. Buffers are kept between batches; their sizes are rounded up, so that batches of
//! similar sizes use the same ones.

use dfdx::prelude::Storage;
use pipe_stages::{
    data::HiddenType,
    gpt2::{Activation, Config, Precision},
};

use crate::{
    buffer::Buffer,
    launch::{Formats, Heads, Kernels, Keys},
    machine::{Machine, Numbers, Trouble},
    prompts::{Dropped, Prompts},
    slice::{Factor, Slice, SliceMut, bytes_of},
    weights::{Block, Blocks, Norm},
};

/// Rows by which buffers grow.
const ROWS: usize = 4096;

/// A buffer that grows when it must.
#[derive(Debug)]
struct Scratch<M: Machine>(Option<Buffer<M>>);

impl<M: Machine> Scratch<M> {
    /// Room for `rows` of `width` numbers, f32; what was in it may be lost.
    fn room(&mut self, kernels: &Kernels<M>, rows: usize, width: usize) -> Result<(), Trouble<M>> {
        let length = |numbers: &Numbers<M>| Storage::<f32>::len(kernels.machine().device(), numbers);
        if self.0.as_ref().is_none_or(|numbers| length(numbers) < rows * width) {
            self.0 = None;
            self.0 = Some(kernels.buffer(rows.next_multiple_of(ROWS.min(rows.next_power_of_two())) * width)?);
        }
        Ok(())
    }

    fn numbers(&self) -> &Numbers<M> {
        self.0.as_ref().expect("room was made")
    }

    fn write(&mut self, kernels: &Kernels<M>) -> SliceMut<'_> {
        kernels.slice_mut(self.0.as_mut().expect("room was made"))
    }
}

/// Applies blocks to batches of prompts.
#[derive(Debug)]
pub struct Forward<M: Machine> {
    kernels: Kernels<M>,
    n_embd: usize,
    heads: Heads,
    activation: Activation,
    precision: Precision,
    /// The residual stream, and that of last positions.
    stream: Scratch<M>,
    last: Scratch<M>,
    normal: Scratch<M>,
    qkv: Scratch<M>,
    mixed: Scratch<M>,
    /// Of the MLP, before GELU and after it in the format of products; the queries of last positions.
    inner: Scratch<M>,
}

impl<M: Machine> Forward<M> {
    /// For a model of the shape `config`.
    pub fn new(kernels: Kernels<M>, config: &Config, activation: Activation, precision: Precision) -> Self {
        Self {
            kernels,
            n_embd: config.n_embd,
            heads: Heads { count: config.n_head, width: config.head_width() },
            activation,
            precision,
            stream: Scratch(None),
            last: Scratch(None),
            normal: Scratch(None),
            qkv: Scratch(None),
            mixed: Scratch(None),
            inner: Scratch(None),
        }
    }

    /// The kernels that it uses.
    pub fn kernels(&self) -> &Kernels<M> {
        &self.kernels
    }

    /// Makes room for a batch of so many positions; whatever does not fit fails here, and leaves nothing
    /// that takes memory from a smaller batch.
    pub fn room(&mut self, positions: usize) -> Result<(), Trouble<M>> {
        let made = self.make_room(positions);
        if made.is_err() {
            let Self { stream, last, normal, qkv, mixed, inner, .. } = self;
            [stream, last, normal, qkv, mixed, inner].into_iter().for_each(|scratch| scratch.0 = None);
        }
        made
    }

    fn make_room(&mut self, positions: usize) -> Result<(), Trouble<M>> {
        let (c, kernels) = (self.n_embd, &self.kernels);
        // Counted as f32, whatever the numbers are.
        let of_products = |width: usize| (bytes_of(self.precision) * width).div_ceil(4);
        self.stream.room(kernels, positions, c)?;
        self.last.room(kernels, positions, c)?;
        self.normal.room(kernels, positions, c)?;
        self.qkv.room(kernels, positions, of_products(3 * c))?;
        self.mixed.room(kernels, positions, of_products(c))?;
        self.inner.room(kernels, positions, of_products(4 * c))
    }

    /// The residual stream, to write the start of a batch to.
    pub fn stream(&mut self) -> SliceMut<'_> {
        self.stream.write(&self.kernels)
    }

    /// The residual stream of the last batch, as `dtype` stores it: `positions` rows. What a norm has left is
    /// overwritten.
    pub fn stored(&mut self, dtype: HiddenType, positions: usize) -> Result<Slice<'_>, Trouble<M>> {
        if dtype == HiddenType::F16 {
            let (to, from) = (self.normal.write(&self.kernels), self.kernels.slice(self.stream.numbers()));
            self.kernels.convert(Precision::F16, &to, from, positions * self.n_embd)?;
        }
        Ok(self.kernels.slice(match dtype {
            HiddenType::F32 => self.stream.numbers(),
            HiddenType::F16 => self.normal.numbers(),
        }))
    }

    /// The residual stream.
    pub fn states(&self) -> Slice<'_> {
        self.kernels.slice(self.stream.numbers())
    }

    /// What [`Self::last_states`] gave.
    pub fn final_states(&self) -> Slice<'_> {
        self.kernels.slice(self.normal.numbers())
    }

    /// Applies `blocks` to the residual stream of `prompts`.
    pub fn blocks(&mut self, blocks: &Blocks<M>, prompts: &Prompts<M>) -> Result<(), Trouble<M>> {
        for block in &blocks.blocks {
            self.block(block, prompts)?;
        }
        if blocks.blocks.is_empty() {
            return Ok(());
        }
        let (kernels, stream) = (&self.kernels, self.stream.write(&self.kernels));
        kernels.add_bias(&stream, kernels.slice(&blocks.lacking), prompts.positions(), self.n_embd)
    }

    /// Applies `blocks` and the final `norm`: the result at the last positions is in
    /// [`Self::final_states`], `[prompts, n_embd]`.
    pub fn last_states(
        &mut self,
        blocks: &Blocks<M>,
        norm: &Norm<M>,
        prompts: &Prompts<M>,
    ) -> Result<(), Trouble<M>> {
        if let Some((last, before)) = blocks.blocks.split_last() {
            for block in before {
                self.block(block, prompts)?;
            }
            self.last_block(last, prompts)?;
        } else {
            let (kernels, states) = (&self.kernels, self.kernels.slice(self.stream.numbers()));
            kernels.gather_last(&self.last.write(kernels), states, prompts, self.n_embd)?;
        }
        let (kernels, rows, c) = (&self.kernels, prompts.count(), self.n_embd);
        let (out, last) = (self.normal.write(kernels), kernels.slice(self.last.numbers()));
        let (lacking, norm) = (kernels.slice(&blocks.lacking), norm.slices(kernels.machine()));
        kernels.layer_norm(Precision::F32, &out, None, last, Some(lacking), norm, rows, c)
    }

    /// Applies `block`, but for the biases that the stream lacks.
    fn block(&mut self, block: &Block<M>, prompts: &Prompts<M>) -> Result<(), Trouble<M>> {
        let Self { kernels, precision, heads, .. } = self;
        let (machine, c, rows, format) = (kernels.machine(), self.n_embd, prompts.positions(), *precision);
        let (stream, normal) = (self.stream.write(kernels), self.normal.write(kernels));
        let (norm, lacking) = (block.ln_1.slices(machine), Some(kernels.slice(&block.lacking_1)));
        kernels.layer_norm(format, &normal, None, stream.read(), lacking, norm, rows, c)?;
        let factor = Factor::new(normal.read(), format, rows, c);
        let matrix = block.attention.matrix(machine);
        kernels.multiply_rounded(factor, matrix, self.qkv.write(kernels), 3 * c)?;

        let (qkv, bias) = (kernels.slice(self.qkv.numbers()), block.attention.bias(machine));
        let (biases, bytes) = (Some([bias, bias.skip(4 * c), bias.skip(8 * c)]), bytes_of(format) * c);
        let keys = Keys { k: qkv.skip(bytes), v: qkv.skip(2 * bytes), stride: 3 * c, biases };
        let mixed = self.mixed.write(kernels);
        let (formats, dropped) = (Formats::all(format), Dropped::NOTHING);
        kernels.attention(formats, &mixed, None, (qkv, 3 * c), keys, dropped, prompts, *heads)?;
        let factor = Factor::new(mixed.read(), format, rows, c);
        kernels.multiply(1.0, factor, block.projection.factor(machine), 1.0, stream, c)?;
        let stream = self.stream.write(kernels);
        mlp(self.activation, format, kernels, block, rows, stream, normal, &mut self.inner)
    }

    /// As [`Self::block`] for the last positions alone, which move from `stream` to `last`.
    fn last_block(&mut self, block: &Block<M>, prompts: &Prompts<M>) -> Result<(), Trouble<M>> {
        let Self { kernels, precision, heads, .. } = self;
        let (machine, c, format) = (kernels.machine(), self.n_embd, *precision);
        let (positions, rows) = (prompts.positions(), prompts.count());
        let (stream, normal) = (self.stream.write(kernels), self.normal.write(kernels));
        let (norm, lacking) = (block.ln_1.slices(machine), Some(kernels.slice(&block.lacking_1)));
        kernels.layer_norm(format, &normal, None, stream.read(), lacking, norm, positions, c)?;
        let matrix = block.attention.matrix(machine);
        let factor = Factor::new(normal.read(), format, positions, c);
        kernels.multiply_rounded(factor, matrix.columns(c, 2 * c), self.qkv.write(kernels), 2 * c)?;

        let last = self.last.write(kernels);
        kernels.gather_last(&last, stream.read(), prompts, c)?;
        kernels.layer_norm(format, &normal, None, last.read(), lacking, norm, rows, c)?;
        let factor = Factor::new(normal.read(), format, rows, c);
        kernels.multiply_rounded(factor, matrix.columns(0, c), self.inner.write(kernels), c)?;

        let (kv, bias) = (kernels.slice(self.qkv.numbers()), block.attention.bias(machine));
        let biases = Some([bias, bias.skip(4 * c), bias.skip(8 * c)]);
        let keys = Keys { k: kv, v: kv.skip(bytes_of(format) * c), stride: 2 * c, biases };
        let (q, mixed) = (kernels.slice(self.inner.numbers()), self.mixed.write(kernels));
        let formats = Formats::all(format);
        kernels.attention_last(formats, &mixed, q, keys, Dropped::NOTHING, prompts, *heads)?;
        let factor = Factor::new(mixed.read(), format, rows, c);
        kernels.multiply(1.0, factor, block.projection.factor(machine), 1.0, last, c)?;
        let last = self.last.write(kernels);
        mlp(self.activation, format, kernels, block, rows, last, normal, &mut self.inner)
    }
}

/// Adds the MLP of `block` to `stream`, but for the bias of its second product.
#[allow(clippy::too_many_arguments)]
fn mlp<M: Machine>(
    activation: Activation,
    format: Precision,
    kernels: &Kernels<M>,
    block: &Block<M>,
    rows: usize,
    stream: SliceMut<'_>,
    normal: SliceMut<'_>,
    inner: &mut Scratch<M>,
) -> Result<(), Trouble<M>> {
    let machine = kernels.machine();
    let (c, width) = block.expand.matrix(machine).shape();
    let (norm, lacking) = (block.ln_2.slices(machine), Some(kernels.slice(&block.lacking_2)));
    kernels.layer_norm(format, &normal, None, stream.read(), lacking, norm, rows, c)?;
    let factor = Factor::new(normal.read(), format, rows, c);
    kernels.multiply_rounded(factor, block.expand.matrix(machine), inner.write(kernels), width)?;
    let inner = inner.write(kernels);
    kernels.gelu(format, activation, &inner, inner.read(), block.expand.bias(machine), rows, width)?;
    let factor = Factor::new(inner.read(), format, rows, width);
    kernels.multiply(1.0, factor, block.contract.factor(machine), 1.0, stream, c)
}
