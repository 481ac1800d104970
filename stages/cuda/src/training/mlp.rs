//! The second half of a block, and the final norm.

use std::sync::Arc;

use pipe_stages::gpt2::{Precision, kernels::dropout::Site};

use super::{
    parameters::{Block, Norm},
    pass::Pass,
    rounded::Rounded,
    stream::{Recorder, Stream},
};
use crate::{
    buffer::Buffer,
    launch::Kernels,
    machine::{Machine, Trouble},
    slice::Factor,
};

/// `x + dropout(down(gelu(up(norm_2(x)))))`, for all positions or the `last` ones.
pub fn mlp<M: Machine>(
    tape: &mut Recorder<M>,
    x: &Stream<M>,
    pass: &Arc<Pass<M>>,
    block: &Arc<Block<M>>,
    last: bool,
) -> Result<Stream<M>, Trouble<M>> {
    let (kernels, c, rows) = (&pass.kernels, pass.n_embd, pass.prompts.rows(last));
    let (machine, width, format) = (kernels.machine(), block.up.outputs(), pass.forward);
    let states = kernels.slice(&x.values);
    let mut normal = pass.buffer_in(format, rows, c)?;
    let (to, norm) = (kernels.slice_mut(&mut normal), block.norm_2.slices(machine));
    kernels.layer_norm(format, &to, None, states, None, norm, rows, c)?;
    let mut inner = pass.buffer_in(format, rows, width)?;
    let from = Rounded::new(Factor::new(kernels.slice(&normal), format, rows, c));
    block.up.forward_rounded(kernels, format, &from, kernels.slice_mut(&mut inner))?;
    let mut active = pass.buffer_in(format, rows, width)?;
    let (from, to) = (kernels.slice(&inner), kernels.slice_mut(&mut active));
    kernels.gelu(format, pass.activation, &to, from, block.up.bias.slice(machine), rows, width)?;
    let mut out = pass.buffer(rows, c)?;
    let from = Rounded::new(Factor::new(kernels.slice(&active), format, rows, width));
    block.down.forward(kernels, format, &from, 0..c, kernels.slice_mut(&mut out))?;
    let dropped = pass.dropped(block.index, Site::MlpBranch);
    let (to, bias) = (kernels.slice_mut(&mut out), block.down.bias.slice(machine));
    kernels.add_branch(&to, states, bias, dropped, &pass.prompts, last, c)?;
    let out = Stream::new(out);
    if !tape.is_on() {
        return Ok(out);
    }
    let (input, output, pass, block) = (x.clone(), out.clone(), Arc::clone(pass), Arc::clone(block));
    // Only gradients of weights need what the products read.
    let normal = block.up.weight.trained.is_some().then_some(normal);
    let active = block.down.weight.trained.is_some().then_some(active);
    tape.record(move |gradients| {
        let (kernels, forward, format) = (&pass.kernels, pass.forward, pass.backward);
        let machine = kernels.machine();
        let mut of_input = output.upstream();
        let mut of_inner = pass.buffer_in(format, rows, width)?;
        {
            let from = kernels.slice(&of_input);
            let kept = pass.kept(block.index, Site::MlpBranch, format, from, last)?;
            let upstream = Rounded::new(match &kept {
                Some(kept) => Factor::new(kernels.slice(kept), format, rows, c),
                None => Factor::new(from, Precision::F32, rows, c),
            });
            let x = rows_of(kernels, active.as_ref(), forward, rows, width);
            block.down.parameters_backward(kernels, gradients, format, x.as_ref(), &upstream, 0..c)?;
            let to = kernels.slice_mut(&mut of_inner);
            block.down.input_backward_rounded(kernels, format, &upstream, to)?;
        }
        let (to, from) = (kernels.slice_mut(&mut of_inner), kernels.slice(&inner));
        let bias = block.up.bias.slice(machine);
        kernels.gelu_gradient(forward, pass.activation, &to, from, bias, rows, width)?;
        let upstream = Rounded::new(Factor::new(kernels.slice(&of_inner), format, rows, width));
        let x = rows_of(kernels, normal.as_ref(), forward, rows, c);
        block.up.parameters_backward(kernels, gradients, format, x.as_ref(), &upstream, 0..width)?;
        let mut of_normal = pass.buffer(rows, c)?;
        let to = kernels.slice_mut(&mut of_normal);
        block.up.input_backward(kernels, format, &upstream, 0..width, 0.0, to)?;
        {
            let (into, states) = (kernels.slice_mut(&mut of_input), kernels.slice(&input.values));
            let upstream = kernels.slice(&of_normal);
            block.norm_2.backward(kernels, gradients, states, upstream, Some(&into), rows, c)?;
        }
        // Nothing else uses the stream between the two halves of a block.
        input.gradient.replace(Some(of_input));
        Ok(())
    });
    Ok(out)
}

/// What products read, where it was kept.
fn rows_of<'a, M: Machine>(
    kernels: &Kernels<M>,
    kept: Option<&'a Buffer<M>>,
    format: Precision,
    rows: usize,
    width: usize,
) -> Option<Rounded<'a, M>> {
    kept.map(|kept| Rounded::new(Factor::new(kernels.slice(kept), format, rows, width)))
}

/// The final norm of last positions.
pub fn final_norm<M: Machine>(
    tape: &mut Recorder<M>,
    x: &Stream<M>,
    pass: &Arc<Pass<M>>,
    norm: &Arc<Norm<M>>,
) -> Result<Stream<M>, Trouble<M>> {
    let (kernels, c, rows) = (&pass.kernels, pass.n_embd, pass.prompts.count());
    let mut out = pass.buffer(rows, c)?;
    let (to, states) = (kernels.slice_mut(&mut out), kernels.slice(&x.values));
    kernels.layer_norm(Precision::F32, &to, None, states, None, norm.slices(kernels.machine()), rows, c)?;
    let out = Stream::new(out);
    let (input, output, pass, norm) = (x.clone(), out.clone(), Arc::clone(pass), Arc::clone(norm));
    tape.record(move |gradients| {
        let kernels = &pass.kernels;
        let upstream = output.upstream();
        let mut of_input = pass.zeros(rows, c)?;
        {
            let (into, states) = (kernels.slice_mut(&mut of_input), kernels.slice(&input.values));
            norm.backward(kernels, gradients, states, kernels.slice(&upstream), Some(&into), rows, c)?;
        }
        input.gradient.replace(Some(of_input));
        Ok(())
    });
    Ok(out)
}
