//! The first half of a block: `x + dropout(output(attention(norm_1(x))))`.

use std::{rc::Rc, sync::Arc};

use pipe_stages::gpt2::{LoraTarget, Precision, kernels::dropout::Site};

use super::{
    adapter::{self, Input},
    parameters::{Block, Grads},
    pass::Pass,
    rounded::Rounded,
    stream::{Recorder, Stream},
};
use crate::{
    buffer::Buffer,
    launch::{Formats, Keys},
    machine::{Machine, Numbers, Trouble},
    slice::{Factor, Slice},
};

/// Which positions an attention branch computes, and whether its input needs a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Only the last position of each prompt, for the last block of a classifier.
    pub last: bool,
    /// Whether something trained lies before.
    pub input_gradient: bool,
}

/// The attention branch of `block` added to `x` `[positions, n_embd]`; the result has all positions
/// or the last ones.
pub fn attention<M: Machine>(
    tape: &mut Recorder<M>,
    x: &Stream<M>,
    pass: &Arc<Pass<M>>,
    block: &Arc<Block<M>>,
    extent: Extent,
) -> Result<Stream<M>, Trouble<M>> {
    let half =
        Half { pass: Arc::clone(pass), block: Arc::clone(block), extent, states: Rc::clone(&x.values) };
    let (saved, out) = half.forward()?;
    let out = Stream::new(out);
    if !tape.is_on() {
        return Ok(out);
    }
    let (input, output) = (x.clone(), out.clone());
    tape.record(move |gradients| {
        if let Some(of_input) = half.backward(gradients, &saved, output.upstream())? {
            // Nothing else uses the stream between two blocks.
            input.gradient.replace(Some(of_input));
        }
        Ok(())
    });
    Ok(out)
}

struct Half<M: Machine> {
    pass: Arc<Pass<M>>,
    block: Arc<Block<M>>,
    extent: Extent,
    /// `[positions, n_embd]`.
    states: Rc<Buffer<M>>,
}

/// What the forward pass keeps for the backward pass.
struct Saved<M: Machine> {
    /// The output of the norm, `[positions, n_embd]`.
    normal: Normal<M>,
    /// Of it the rows that have queries, where these are not all.
    normal_last: Option<Normal<M>>,
    /// `[queries, n_embd]`.
    q: Buffer<M>,
    /// `[positions, 2·n_embd]`, columns k | v.
    kv: Buffer<M>,
    /// Logarithms of the denominators of softmax, `[positions, heads]`; empty for last positions.
    denominators: Buffer<M>,
    /// `[queries, n_embd]`.
    attended: Buffer<M>,
    /// What each adapter keeps, in their order.
    adapters: Vec<Buffer<M>>,
}

impl<M: Machine> Saved<M> {
    fn query_rows(&self) -> &Normal<M> {
        self.normal_last.as_ref().unwrap_or(&self.normal)
    }
}

/// The output of a norm.
struct Normal<M: Machine> {
    /// In the format of products.
    rounded: Buffer<M>,
    /// In f32, where adapters read it and that is another.
    wide: Option<Buffer<M>>,
}

impl<M: Machine> Normal<M> {
    fn wide(&self) -> &Buffer<M> {
        self.wide.as_ref().unwrap_or(&self.rounded)
    }
}

impl<M: Machine> Half<M> {
    fn keys<'a>(&self, kv: Slice<'a>) -> Keys<'a> {
        let c = self.pass.n_embd;
        Keys { k: kv, v: kv.skip(4 * c), stride: 2 * c, biases: None }
    }

    /// Bytes of a row of keys and values before those of `target`.
    fn before(&self, target: LoraTarget) -> usize {
        if target == LoraTarget::V { 4 * self.pass.n_embd } else { 0 }
    }

    fn input<'a>(&self, values: &'a Numbers<M>, last: bool) -> Input<'a> {
        Input { values: self.pass.kernels.slice(values), last, block: self.block.index }
    }

    /// The norm before attention of `rows` of the stream.
    fn normal(&self, states: Slice<'_>, rows: usize) -> Result<Normal<M>, Trouble<M>> {
        let Self { pass, block, .. } = self;
        let (kernels, c, format) = (&pass.kernels, pass.n_embd, pass.forward);
        let is_wide = format != Precision::F32 && !block.adapters.is_empty();
        let mut rounded = pass.buffer_in(format, rows, c)?;
        let mut wide = if is_wide { Some(pass.buffer(rows, c)?) } else { None };
        let (to, to_wide) =
            (kernels.slice_mut(&mut rounded), wide.as_mut().map(|wide| kernels.slice_mut(wide)));
        let norm = block.norm_1.slices(kernels.machine());
        kernels.layer_norm(format, &to, to_wide.as_ref(), states, None, norm, rows, c)?;
        Ok(Normal { rounded, wide })
    }

    /// `numbers` in `format`, `[rows, columns]`.
    fn rows<'a>(
        &self,
        numbers: &'a Buffer<M>,
        format: Precision,
        rows: usize,
        columns: usize,
    ) -> Rounded<'a, M> {
        Rounded::new(Factor::new(self.pass.kernels.slice(numbers), format, rows, columns))
    }

    fn forward(&self) -> Result<(Saved<M>, Buffer<M>), Trouble<M>> {
        let Self { pass, block, extent: Extent { last, .. }, states } = self;
        let (kernels, prompts, c, last) = (&pass.kernels, &pass.prompts, pass.n_embd, *last);
        let (machine, positions, queries) = (kernels.machine(), prompts.positions(), prompts.rows(last));
        let format = pass.forward;
        let normal = self.normal(kernels.slice(states), positions)?;
        let last_states = if last { Some(pass.last_rows(states)?) } else { None };
        let normal_last = match &last_states {
            Some(states) => Some(self.normal(kernels.slice(states), queries)?),
            None => None,
        };
        let query_rows = normal_last.as_ref().unwrap_or(&normal);
        let (mut q, mut kv) = (pass.buffer(queries, c)?, pass.buffer(positions, 2 * c)?);
        let (from, to) = (self.rows(&query_rows.rounded, format, queries, c), kernels.slice_mut(&mut q));
        block.qkv.forward(kernels, format, &from, 0..c, to)?;
        let (from, to) = (self.rows(&normal.rounded, format, positions, c), kernels.slice_mut(&mut kv));
        block.qkv.forward(kernels, format, &from, c..3 * c, to)?;
        let bias = block.qkv.bias.slice(machine);
        kernels.add_bias(&kernels.slice_mut(&mut q), bias, queries, c)?;
        kernels.add_bias(&kernels.slice_mut(&mut kv), bias.skip(4 * c), positions, 2 * c)?;
        let mut adapters = Vec::new();
        for adapter in &block.adapters {
            match adapter.target {
                LoraTarget::Q => {
                    let (x, out) = (self.input(query_rows.wide(), last), kernels.slice_mut(&mut q));
                    adapters.push(adapter::forward(pass, adapter, x, out, c)?);
                }
                LoraTarget::K | LoraTarget::V => {
                    let out = kernels.slice_mut(&mut kv).skip(self.before(adapter.target));
                    let x = self.input(normal.wide(), false);
                    adapters.push(adapter::forward(pass, adapter, x, out, 2 * c)?);
                }
                LoraTarget::O => {}
            }
        }
        let mut attended = pass.buffer(queries, c)?;
        let mut denominators = kernels.buffer(if last { 1 } else { positions * pass.heads.count })?;
        {
            let (keys, q, formats) =
                (self.keys(kernels.slice(&kv)), kernels.slice(&q), Formats::wide(pass.forward));
            let (out, dropped) =
                (kernels.slice_mut(&mut attended), pass.dropped(block.index, Site::Attention));
            if last {
                kernels.attention_last(formats, &out, q, keys, dropped, prompts, pass.heads)?;
            } else {
                let kept = kernels.slice_mut(&mut denominators);
                let q = (q, c);
                kernels.attention(formats, &out, Some(&kept), q, keys, dropped, prompts, pass.heads)?;
            }
        }
        let mut out = pass.buffer(queries, c)?;
        let (from, to) = (self.rows(&attended, Precision::F32, queries, c), kernels.slice_mut(&mut out));
        block.output.forward(kernels, format, &from, 0..c, to)?;
        drop(from);
        if let Some(adapter) = block.adapters.iter().find(|adapter| adapter.target == LoraTarget::O) {
            let (x, out) = (self.input(&attended, last), kernels.slice_mut(&mut out));
            adapters.push(adapter::forward(pass, adapter, x, out, c)?);
        }
        let residual = kernels.slice(last_states.as_deref().unwrap_or(states));
        let dropped = pass.dropped(block.index, Site::AttentionBranch);
        let (to, bias) = (kernels.slice_mut(&mut out), block.output.bias.slice(machine));
        kernels.add_branch(&to, residual, bias, dropped, prompts, last, c)?;
        Ok((Saved { normal, normal_last, q, kv, denominators, attended, adapters }, out))
    }

    /// Returns the gradient of the input where it is needed; `upstream` is that of the output.
    fn backward(
        &self,
        gradients: &mut Grads<M>,
        saved: &Saved<M>,
        upstream: Buffer<M>,
    ) -> Result<Option<Buffer<M>>, Trouble<M>> {
        let Self { pass, block, extent, states } = self;
        let (kernels, prompts, c, last) = (&pass.kernels, &pass.prompts, pass.n_embd, extent.last);
        let (format, positions, queries) = (pass.backward, prompts.positions(), prompts.rows(last));
        let is_read_wide = block.adapters.iter().any(|adapter| adapter.target == LoraTarget::O);
        let of_kept = if is_read_wide { Precision::F32 } else { format };
        let from = kernels.slice(&upstream);
        let kept = pass.kept(block.index, Site::AttentionBranch, of_kept, from, last)?;
        let of_branch = match &kept {
            Some(kept) => self.rows(kept, of_kept, queries, c),
            None => self.rows(&upstream, Precision::F32, queries, c),
        };
        let x = Some(self.rows(&saved.attended, Precision::F32, queries, c));
        block.output.parameters_backward(kernels, gradients, format, x.as_ref(), &of_branch, 0..c)?;
        let mut of_attended = pass.buffer(queries, c)?;
        let to = kernels.slice_mut(&mut of_attended);
        block.output.input_backward(kernels, format, &of_branch, 0..c, 0.0, to)?;
        let adapters = || block.adapters.iter().zip(&saved.adapters);
        for (adapter, down) in adapters().filter(|(adapter, _)| adapter.target == LoraTarget::O) {
            let (x, into) = (self.input(&saved.attended, last), kernels.slice_mut(&mut of_attended));
            adapter::backward(pass, gradients, adapter, x, down, of_branch.given(), Some(into))?;
        }
        drop(of_branch);
        let (of_q, of_kv) = self.attention_backward(saved, &of_attended)?;
        let upstream_q = self.rows(&of_q, Precision::F32, queries, c);
        let upstream_kv = self.rows(&of_kv, Precision::F32, positions, 2 * c);
        let x = self.rows(&saved.normal.rounded, pass.forward, positions, c);
        let normal_last = saved.normal_last.as_ref();
        let x_last = normal_last.map(|normal| self.rows(&normal.rounded, pass.forward, queries, c));
        let x_q = Some(x_last.as_ref().unwrap_or(&x));
        block.qkv.parameters_backward(kernels, gradients, format, x_q, &upstream_q, 0..c)?;
        block.qkv.parameters_backward(kernels, gradients, format, Some(&x), &upstream_kv, c..3 * c)?;

        // The norm's gradient is needed for what lies before it and for its own parameters.
        let needs_norm = extent.input_gradient || block.norm_1.weight.trained.is_some();
        let rows = |count: usize| if needs_norm { count } else { 0 };
        let mut of_normal = pass.buffer(rows(positions), c)?;
        let mut of_last = pass.buffer(rows(if last { queries } else { 0 }), c)?;
        if needs_norm {
            let to = kernels.slice_mut(&mut of_normal);
            block.qkv.input_backward(kernels, format, &upstream_kv, c..3 * c, 0.0, to)?;
            let (to, beta) = if last {
                (kernels.slice_mut(&mut of_last), 0.0)
            } else {
                (kernels.slice_mut(&mut of_normal), 1.0)
            };
            block.qkv.input_backward(kernels, format, &upstream_q, 0..c, beta, to)?;
        }
        for (adapter, down) in adapters() {
            let (x, from, into) = match adapter.target {
                LoraTarget::Q => {
                    let into = if last { &mut of_last } else { &mut of_normal };
                    (self.input(saved.query_rows().wide(), last), upstream_q.given(), into)
                }
                LoraTarget::K | LoraTarget::V => {
                    let first = self.before(adapter.target) / 4;
                    let from = upstream_kv.given().columns(first, c);
                    (self.input(saved.normal.wide(), false), from, &mut of_normal)
                }
                LoraTarget::O => continue,
            };
            let into = needs_norm.then_some(kernels.slice_mut(into));
            adapter::backward(pass, gradients, adapter, x, down, from, into)?;
        }
        if !needs_norm {
            return Ok(None);
        }
        if last {
            let to = kernels.slice_mut(&mut of_normal);
            kernels.scatter_last(&to, kernels.slice(&of_last), prompts, c)?;
        }
        let (states, from) = (kernels.slice(states), kernels.slice(&of_normal));
        if !extent.input_gradient {
            block.norm_1.backward(kernels, gradients, states, from, None, positions, c)?;
            return Ok(None);
        }
        let mut of_input = upstream;
        if last {
            let of_last = std::mem::replace(&mut of_input, pass.zeros(positions, c)?);
            let to = kernels.slice_mut(&mut of_input);
            kernels.scatter_last(&to, kernels.slice(&of_last), prompts, c)?;
        }
        {
            let into = kernels.slice_mut(&mut of_input);
            block.norm_1.backward(kernels, gradients, states, from, Some(&into), positions, c)?;
        }
        Ok(Some(of_input))
    }

    /// The gradients of queries, and of keys and values side by side.
    fn attention_backward(
        &self,
        saved: &Saved<M>,
        of_attended: &Numbers<M>,
    ) -> Result<(Buffer<M>, Buffer<M>), Trouble<M>> {
        let Self { pass, block, extent, .. } = self;
        let (kernels, prompts, c) = (&pass.kernels, &pass.prompts, pass.n_embd);
        let (positions, queries) = (prompts.positions(), prompts.rows(extent.last));
        let (mut of_q, mut of_kv) = (pass.buffer(queries, c)?, pass.buffer(positions, 2 * c)?);
        {
            let to = kernels.slice_mut(&mut of_q);
            let (of_k, of_v) = kernels.slice_mut(&mut of_kv).columns(4 * c);
            let (q, keys) = (kernels.slice(&saved.q), self.keys(kernels.slice(&saved.kv)));
            let (from, dropped) = (kernels.slice(of_attended), pass.dropped(block.index, Site::Attention));
            let (into, heads, format) = ([&of_k, &of_v], pass.heads, pass.forward);
            if extent.last {
                kernels.attention_last_gradient(format, &to, into, q, keys, from, dropped, prompts, heads)?;
            } else {
                let mut dots = kernels.buffer(positions * heads.count)?;
                let dots = kernels.slice_mut(&mut dots);
                let given = (kernels.slice(&saved.attended), kernels.slice(&saved.denominators));
                kernels.attention_gradient(
                    format, &to, into, q, keys, given, &dots, from, dropped, prompts, heads,
                )?;
            }
        }
        Ok((of_q, of_kv))
    }
}
