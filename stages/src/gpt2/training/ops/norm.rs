//! The final norm.

use std::sync::Arc;

use dfdx::prelude::{Cpu, CpuError, PutTape, SplitTape, Tape};

use super::{Matrix, Norm, Pass, numbers, take, tensor};

/// Layer norm of the rows of `x`.
pub(in super::super) fn norm<T: Tape<f32, Cpu>>(
    x: Matrix<T>,
    pass: &Pass,
    norm: &Arc<Norm>,
) -> Result<Matrix<T>, CpuError> {
    let (x, mut tape) = x.split_tape();
    let states = numbers(&x);
    let out = tensor(pass, pass.normalized(&states, norm))?;
    let (input, output, pass, norm) = (x.ghost(), out.ghost(), pass.clone(), Arc::clone(norm));
    tape.add_backward_op(move |gradients| {
        let upstream = take(gradients.get_or_alloc_mut(&output)?);
        let mut of_input = take(gradients.get_or_alloc_mut(&input)?);
        pass.norm_backward(gradients, &norm, &states, &upstream, Some(&mut of_input))?;
        **gradients.get_or_alloc_mut(&input)? = of_input;
        Ok(())
    });
    Ok(out.put_tape(tape))
}
