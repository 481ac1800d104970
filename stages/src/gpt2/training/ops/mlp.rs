//! The second half of a block: `x + dropout(down(gelu(up(norm_2(x)))))`.

use std::sync::Arc;

use dfdx::prelude::{Cpu, CpuError, PutTape, SplitTape, Tape};

use super::{Matrix, Pass, add, numbers, take, tensor};
use crate::gpt2::{
    kernels::{dropout::Site, gelu::activate, gemm::Target, gradient},
    training::parameters::Block,
};

/// The MLP branch of `block` added to `x`, whose rows are all positions or the `last` ones.
pub(in super::super) fn mlp<T: Tape<f32, Cpu>>(
    x: Matrix<T>,
    pass: &Pass,
    block: &Arc<Block>,
    last: bool,
) -> Result<Matrix<T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let states = numbers(&x);
    let normal = pass.normalized(&states, &block.norm_2);
    let inner = block.up.forward(pass, &normal, 0..block.up.width());
    let mut active = inner.clone();
    activate(pass.instructions, pass.activation, &mut active);
    let mut out = block.down.forward(pass, &active, 0..pass.n_embd);
    pass.batch.apply_dropout(last, block.index, Site::MlpBranch, &mut out, pass.n_embd);
    add(Some(&mut out), &states);
    let out = tensor(pass, out)?;
    if !T::OWNS_TAPE {
        return Ok(out.put_tape(tape));
    }
    let (input, output, pass, block) = (x.ghost(), out.ghost(), pass.clone(), Arc::clone(block));
    tape.add_backward_op(move |gradients| {
        let mut of_input = take(gradients.get_or_alloc_mut(&output)?);
        let mut upstream = of_input.clone();
        pass.batch.apply_dropout(last, block.index, Site::MlpBranch, &mut upstream, pass.n_embd);
        block.down.parameters_backward(&pass, gradients, &active, &upstream, 0..pass.n_embd)?;
        let mut of_inner = active;
        block.down.input_backward(&pass, &upstream, 0..pass.n_embd, Target::Replace, &mut of_inner);
        gradient::gelu::multiply_derivative(pass.instructions, pass.activation, &inner, &mut of_inner);
        let columns = 0..block.up.width();
        block.up.parameters_backward(&pass, gradients, &normal, &of_inner, columns.clone())?;
        let mut of_normal = normal;
        block.up.input_backward(&pass, &of_inner, columns, Target::Replace, &mut of_normal);
        pass.norm_backward(gradients, &block.norm_2, &states, &of_normal, Some(&mut of_input))?;
        // Nothing else uses the stream between the two halves of a block.
        **gradients.get_or_alloc_mut(&input)? = of_input;
        Ok(())
    });
    Ok(out.put_tape(tape))
}
