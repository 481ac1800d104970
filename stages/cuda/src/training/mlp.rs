//! The second half of a block, and the final norm.

use std::sync::Arc;

use pipe_stages::gpt2::{Precision, kernels::dropout::Site};

use super::{
    parameters::{Block, Norm},
    pass::Pass,
    stream::{Recorder, Stream},
};
use crate::machine::{Machine, Trouble};

/// `x + dropout(down(gelu(up(norm_2(x)))))`, for all positions or the `last` ones.
pub fn mlp<M: Machine>(
    tape: &mut Recorder<M>,
    x: &Stream<M>,
    pass: &Arc<Pass<M>>,
    block: &Arc<Block<M>>,
    last: bool,
) -> Result<Stream<M>, Trouble<M>> {
    let (kernels, c, rows) = (&pass.kernels, pass.n_embd, pass.prompts.rows(last));
    let (machine, inner_width) = (kernels.machine(), block.up.outputs());
    let states = kernels.slice(&x.values);
    let mut normal = pass.buffer(rows, c)?;
    let norm = block.norm_2.slices(machine);
    kernels.layer_norm(Precision::F32, &kernels.slice_mut(&mut normal), states, None, norm, rows, c)?;
    let mut inner = pass.buffer(rows, inner_width)?;
    let (from, to) = (kernels.slice(&normal), kernels.slice_mut(&mut inner));
    block.up.forward(kernels, pass.forward, from, rows, 0..inner_width, to)?;
    let mut active = pass.buffer(rows, inner_width)?;
    let (from, to, bias) =
        (kernels.slice(&inner), kernels.slice_mut(&mut active), block.up.bias.slice(machine));
    kernels.gelu(Precision::F32, pass.activation, &to, from, bias, rows, inner_width)?;
    let mut out = pass.buffer(rows, c)?;
    let from = kernels.slice(&active);
    block.down.forward(kernels, pass.forward, from, rows, 0..c, kernels.slice_mut(&mut out))?;
    let dropped = pass.dropped(block.index, Site::MlpBranch);
    let (to, bias) = (kernels.slice_mut(&mut out), block.down.bias.slice(machine));
    kernels.add_branch(&to, states, bias, dropped, &pass.prompts, last, c)?;
    let out = Stream::new(out);
    if !tape.is_on() {
        return Ok(out);
    }
    let (input, output, pass, block) = (x.clone(), out.clone(), Arc::clone(pass), Arc::clone(block));
    tape.record(move |gradients| {
        let (kernels, format) = (&pass.kernels, pass.backward);
        let machine = kernels.machine();
        let mut of_input = output.upstream();
        let mut branch = None;
        let dropped = pass.dropped(block.index, Site::MlpBranch);
        if dropped.keys.is_some() {
            let mut kept = pass.buffer(rows, c)?;
            let (to, from) = (kernels.slice_mut(&mut kept), kernels.slice(&of_input));
            kernels.drop_rows(&to, from, dropped, &pass.prompts, last, c)?;
            branch = Some(kept);
        }
        let upstream = kernels.slice(branch.as_ref().unwrap_or(&of_input));
        let from = kernels.slice(&active);
        block.down.parameters_backward(kernels, gradients, format, from, upstream, rows, 0..c)?;
        let mut of_inner = active;
        let to = kernels.slice_mut(&mut of_inner);
        block.down.input_backward(kernels, format, upstream, rows, 0..c, 0.0, to)?;
        let (to, from) = (kernels.slice_mut(&mut of_inner), kernels.slice(&inner));
        let bias = block.up.bias.slice(machine);
        kernels.gelu_gradient(pass.activation, &to, from, bias, rows, inner_width)?;
        let (from, upstream) = (kernels.slice(&normal), kernels.slice(&of_inner));
        let columns = 0..inner_width;
        block.up.parameters_backward(kernels, gradients, format, from, upstream, rows, columns.clone())?;
        let mut of_normal = normal;
        let to = kernels.slice_mut(&mut of_normal);
        block.up.input_backward(kernels, format, upstream, rows, columns, 0.0, to)?;
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
    kernels.layer_norm(Precision::F32, &to, states, None, norm.slices(kernels.machine()), rows, c)?;
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
