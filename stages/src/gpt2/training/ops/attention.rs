//! The first half of a block: `x + dropout(output(attention(norm_1(x))))`.

use std::{ops::Range, sync::Arc};

use dfdx::prelude::{Cpu, CpuError, PutTape, SplitTape, Tape};

use super::{Matrix, Pass, adapter, add, matrix, matrix_mut, numbers, rounded, take, tensor};
use crate::gpt2::{
    LoraTarget,
    kernels::{
        dropout::Site,
        gemm::Target,
        gradient::attention::{Pattern, backward, forward},
        rounding::round,
    },
    training::parameters::{Block, Grads},
};

/// Which positions an attention branch computes, and whether its input needs a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Extent {
    /// Only the last position of each prompt, for the last block of a classifier.
    pub last: bool,
    /// Whether something trained lies before.
    pub input_gradient: bool,
}

/// The attention branch of `block` added to `x` `[positions, n_embd]`; the result has all
/// positions or the last ones.
pub(in super::super) fn attention<T: Tape<f32, Cpu>>(
    x: Matrix<T>,
    pass: &Pass,
    block: &Arc<Block>,
    extent: Extent,
) -> Result<Matrix<T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let half = Half::new(numbers(&x), pass, Arc::clone(block), extent);
    let (saved, out) = half.forward();
    let out = tensor(pass, out)?;
    if !T::OWNS_TAPE {
        return Ok(out.put_tape(tape));
    }
    let (input, output) = (x.ghost(), out.ghost());
    tape.add_backward_op(move |gradients| {
        let upstream = take(gradients.get_or_alloc_mut(&output)?);
        if let Some(of_input) = half.backward(gradients, &saved, upstream)? {
            // Nothing else uses the stream between two blocks.
            **gradients.get_or_alloc_mut(&input)? = of_input;
        }
        Ok(())
    });
    Ok(out.put_tape(tape))
}

struct Half {
    pass: Pass,
    block: Arc<Block>,
    extent: Extent,
    pattern: Pattern,
    /// `[positions, n_embd]`.
    states: Vec<f32>,
}

/// What the forward pass keeps for the backward pass.
struct Saved {
    /// The output of the norm, `[positions, n_embd]`.
    normal: Vec<f32>,
    /// Of it the rows that have queries, where these are not all.
    normal_last: Option<Vec<f32>>,
    /// As attention takes them, `[queries, n_embd]`.
    q: Vec<f32>,
    /// `[positions, 2·n_embd]`.
    kv: Vec<f32>,
    probabilities: Vec<f32>,
    /// Attention before the output projection, `[queries, n_embd]`.
    attended: Vec<f32>,
    /// One an adapter.
    adapters: Vec<adapter::Saved>,
}

impl Saved {
    /// The rows of the norm that have queries.
    fn query_rows(&self) -> &[f32] {
        self.normal_last.as_ref().unwrap_or(&self.normal)
    }
}

impl Half {
    fn new(states: Vec<f32>, pass: &Pass, block: Arc<Block>, extent: Extent) -> Self {
        let pattern = pass.batch.pattern(extent.last, block.index, pass.n_head, pass.n_embd);
        Self { pass: pass.clone(), block, extent, pattern, states }
    }

    /// Columns of `target` within `kv`.
    fn kv_columns(&self, target: LoraTarget) -> Range<usize> {
        let c = self.pass.n_embd;
        if target == LoraTarget::K { 0..c } else { c..2 * c }
    }

    fn input<'a>(&self, values: &'a [f32], last: bool) -> adapter::Input<'a> {
        adapter::Input { values, last, block: self.block.index }
    }

    fn forward(&self) -> (Saved, Vec<f32>) {
        let Self { pass, block, extent, .. } = self;
        let (c, last) = (pass.n_embd, extent.last);
        let normal = pass.normalized(&self.states, &block.norm_1);
        let normal_last = last.then(|| pass.batch.last_rows(&normal, c));
        let query_rows = normal_last.as_ref().unwrap_or(&normal);
        let mut q = block.qkv.forward(pass, query_rows, 0..c);
        let mut kv = block.qkv.forward(pass, &normal, c..3 * c);
        let mut adapters = Vec::new();
        for adapter in &block.adapters {
            match adapter.target {
                LoraTarget::Q => {
                    let (x, out) = (self.input(query_rows, last), matrix_mut(&mut q, c));
                    adapters.push(adapter::forward(pass, adapter, x, out));
                }
                LoraTarget::K | LoraTarget::V => {
                    let out = matrix_mut(&mut kv, 2 * c).columns(self.kv_columns(adapter.target));
                    adapters.push(adapter::forward(pass, adapter, self.input(&normal, false), out));
                }
                LoraTarget::O => {}
            }
        }
        round(pass.precision, &mut q);
        round(pass.precision, &mut kv);
        let mut probabilities = vec![0.0; self.pattern.probabilities()];
        let mut attended = vec![0.0; q.len()];
        forward(pass.instructions, &self.pattern, &q, &kv, &mut probabilities, &mut attended);
        let mut out = block.output.forward(pass, &attended, 0..c);
        if let Some(adapter) = block.adapters.iter().find(|adapter| adapter.target == LoraTarget::O) {
            let (x, out) = (self.input(&attended, last), matrix_mut(&mut out, c));
            adapters.push(adapter::forward(pass, adapter, x, out));
        }
        pass.batch.apply_dropout(last, block.index, Site::AttentionBranch, &mut out, c);
        if last {
            add(Some(&mut out), &pass.batch.last_rows(&self.states, c));
        } else {
            add(Some(&mut out), &self.states);
        }
        (Saved { normal, normal_last, q, kv, probabilities, attended, adapters }, out)
    }

    /// Returns the gradient of the input where it is needed; `upstream` is that of the output.
    fn backward(
        &self,
        gradients: &mut Grads,
        saved: &Saved,
        upstream: Vec<f32>,
    ) -> Result<Option<Vec<f32>>, CpuError> {
        let Self { pass, block, extent, .. } = self;
        let (c, last) = (pass.n_embd, extent.last);
        let mut of_branch = upstream.clone();
        pass.batch.apply_dropout(last, block.index, Site::AttentionBranch, &mut of_branch, c);
        block.output.parameters_backward(pass, gradients, &saved.attended, &of_branch, 0..c)?;
        let mut of_attended = vec![0.0; saved.attended.len()];
        block.output.input_backward(pass, &of_branch, 0..c, Target::Replace, &mut of_attended);
        let adapters = || block.adapters.iter().zip(&saved.adapters);
        for (adapter, kept) in adapters().filter(|(adapter, _)| adapter.target == LoraTarget::O) {
            let (x, into) = (self.input(&saved.attended, last), Some(of_attended.as_mut_slice()));
            adapter::backward(pass, gradients, adapter, x, kept, matrix(&of_branch, c), into)?;
        }
        let (mut of_q, mut of_kv) = (vec![0.0; saved.q.len()], vec![0.0; saved.kv.len()]);
        let factors = [&saved.q, &saved.kv, &of_attended];
        let [q, kv, of_attended] = factors.map(|values| rounded(pass.precision.backward(), values));
        let (pattern, probabilities) = (&self.pattern, &saved.probabilities);
        backward(pass.instructions, pattern, &q, &kv, probabilities, &of_attended, &mut of_q, &mut of_kv);
        block.qkv.parameters_backward(pass, gradients, saved.query_rows(), &of_q, 0..c)?;
        block.qkv.parameters_backward(pass, gradients, &saved.normal, &of_kv, c..3 * c)?;

        // The norm's gradient is needed for what lies before it and for its own parameters.
        let needs_norm = extent.input_gradient || block.norm_1.weight.is_trained();
        let rows = if needs_norm { saved.normal.len() } else { 0 };
        let mut of_normal = vec![0.0; rows];
        let mut of_last = vec![0.0; if needs_norm && last { saved.q.len() } else { 0 }];
        if needs_norm {
            block.qkv.input_backward(pass, &of_kv, c..3 * c, Target::Replace, &mut of_normal);
            let (into, target) =
                if last { (&mut of_last, Target::Replace) } else { (&mut of_normal, Target::Add) };
            block.qkv.input_backward(pass, &of_q, 0..c, target, into);
        }
        for (adapter, kept) in adapters() {
            let (x, of_output, into) = match adapter.target {
                LoraTarget::Q if last => {
                    (self.input(saved.query_rows(), true), matrix(&of_q, c), &mut of_last)
                }
                LoraTarget::Q => (self.input(&saved.normal, false), matrix(&of_q, c), &mut of_normal),
                LoraTarget::K | LoraTarget::V => {
                    let of_output = matrix(&of_kv, 2 * c).columns(self.kv_columns(adapter.target));
                    (self.input(&saved.normal, false), of_output, &mut of_normal)
                }
                LoraTarget::O => continue,
            };
            let into = needs_norm.then_some(into.as_mut_slice());
            adapter::backward(pass, gradients, adapter, x, kept, of_output, into)?;
        }
        if !needs_norm {
            return Ok(None);
        }
        if last {
            pass.batch.add_to_last_rows(&of_last, &mut of_normal, c);
        }
        if !extent.input_gradient {
            pass.norm_backward(gradients, &block.norm_1, &self.states, &of_normal, None)?;
            return Ok(None);
        }
        let mut of_input = upstream;
        if last {
            let of_last = std::mem::replace(&mut of_input, vec![0.0; self.states.len()]);
            pass.batch.add_to_last_rows(&of_last, &mut of_input, c);
        }
        pass.norm_backward(gradients, &block.norm_1, &self.states, &of_normal, Some(&mut of_input))?;
        Ok(Some(of_input))
    }
}
