//! Low-rank additions, in f32.

use pipe_stages::gpt2::{Precision, kernels::dropout::Site};

use super::{
    parameters::{Adapter, Grads},
    pass::Pass,
};
use crate::{
    buffer::Buffer,
    machine::{Machine, Numbers, Trouble},
    slice::{Factor, Slice, SliceMut},
};

/// The rows that an adapter reads, `[rows, n_embd]`.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The rows.
    pub values: Slice<'a>,
    /// Whether they are those of last positions.
    pub last: bool,
    /// The block.
    pub block: usize,
}

fn f32(slice: Slice<'_>, rows: usize, columns: usize) -> Factor<'_> {
    Factor::new(slice, Precision::F32, rows, columns)
}

/// The input after dropout; `None` where nothing is dropped.
fn dropped<M: Machine>(
    pass: &Pass<M>,
    adapter: &Adapter<M>,
    x: Input<'_>,
) -> Result<Option<Buffer<M>>, Trouble<M>> {
    pass.kept(x.block, Site::LoraInput(adapter.target), Precision::F32, x.values, x.last)
}

/// Adds `scale · (dropout(x)·a)·b` to `out`, columns of rows `stride` wide; returns `dropout(x)·a`.
pub fn forward<M: Machine>(
    pass: &Pass<M>,
    adapter: &Adapter<M>,
    x: Input<'_>,
    out: SliceMut<'_>,
    stride: usize,
) -> Result<Buffer<M>, Trouble<M>> {
    let (kernels, c, rank, rows) = (&pass.kernels, pass.n_embd, adapter.rank, pass.prompts.rows(x.last));
    let machine = kernels.machine();
    let mut down = pass.buffer(rows, rank)?;
    let kept = dropped(pass, adapter, x)?;
    let input = kept.as_ref().map_or(x.values, |kept| kernels.slice(kept));
    let a = f32(adapter.a.slice(machine), c, rank);
    kernels.multiply(1.0, f32(input, rows, c), a, 0.0, kernels.slice_mut(&mut down), rank)?;
    let b = f32(adapter.b.slice(machine), rank, c);
    kernels.multiply(adapter.scale, f32(kernels.slice(&down), rows, rank), b, 1.0, out, stride)?;
    Ok(down)
}

/// Adds the gradients of A and B, and of the input where `of_input` is given; `upstream` has rows
/// `stride` wide.
#[allow(clippy::too_many_arguments)]
pub fn backward<M: Machine>(
    pass: &Pass<M>,
    gradients: &mut Grads<M>,
    adapter: &Adapter<M>,
    x: Input<'_>,
    down: &Numbers<M>,
    upstream: Factor<'_>,
    of_input: Option<SliceMut<'_>>,
) -> Result<(), Trouble<M>> {
    let (kernels, c, rank, rows) = (&pass.kernels, pass.n_embd, adapter.rank, pass.prompts.rows(x.last));
    let machine = kernels.machine();
    if let Some(of_b) = adapter.b.gradient(machine, gradients)? {
        let down = f32(kernels.slice(down), rows, rank).transposed();
        kernels.multiply(adapter.scale, down, upstream, 1.0, of_b, c)?;
    }
    let mut of_down = pass.buffer(rows, rank)?;
    let b = f32(adapter.b.slice(machine), rank, c).transposed();
    kernels.multiply(adapter.scale, upstream, b, 0.0, kernels.slice_mut(&mut of_down), rank)?;
    let of_down = f32(kernels.slice(&of_down), rows, rank);
    if let Some(of_a) = adapter.a.gradient(machine, gradients)? {
        let kept = dropped(pass, adapter, x)?;
        let input = kept.as_ref().map_or(x.values, |kept| kernels.slice(kept));
        kernels.multiply(1.0, f32(input, rows, c).transposed(), of_down, 1.0, of_a, rank)?;
    }
    let Some(of_input) = of_input else { return Ok(()) };
    let a = f32(adapter.a.slice(machine), c, rank).transposed();
    let dropped = pass.dropped(x.block, Site::LoraInput(adapter.target));
    if dropped.keys.is_none() {
        return kernels.multiply(1.0, of_down, a, 1.0, of_input, c);
    }
    let mut of_kept = pass.buffer(rows, c)?;
    kernels.multiply(1.0, of_down, a, 0.0, kernels.slice_mut(&mut of_kept), c)?;
    kernels.add_dropped(&of_input, kernels.slice(&of_kept), dropped, &pass.prompts, x.last, c)
}
