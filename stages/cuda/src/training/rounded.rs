//! Numbers in the formats of products.

use std::cell::OnceCell;

use pipe_stages::gpt2::Precision;

use crate::{
    buffer::Buffer,
    launch::Kernels,
    machine::{Machine, Trouble},
    slice::{Factor, bytes_of},
};

/// A matrix, and its numbers in another format, made when a product first asks for it.
pub struct Rounded<'a, M: Machine> {
    given: Factor<'a>,
    copy: OnceCell<(Precision, Buffer<M>)>,
}

impl<'a, M: Machine> Rounded<'a, M> {
    /// Of all that `given` lies in.
    pub fn new(given: Factor<'a>) -> Self {
        Self { given, copy: OnceCell::new() }
    }

    /// As it is.
    pub fn given(&self) -> Factor<'a> {
        self.given
    }

    /// In `format`.
    ///
    /// # Panics
    ///
    /// If another one was asked for before that is not the given one.
    pub fn in_format(&self, kernels: &Kernels<M>, format: Precision) -> Result<Factor<'_>, Trouble<M>> {
        if self.given.format() == format {
            return Ok(self.given);
        }
        let (rows, columns) = self.given.shape();
        if self.copy.get().is_none() {
            let copy = rounded(kernels, self.given, format)?;
            self.copy.set((format, copy)).expect("there is none");
        }
        let (made, copy) = self.copy.get().expect("it was made");
        assert_eq!(*made, format, "the format of one pass");
        Ok(Factor::new(kernels.slice(copy), format, rows, columns))
    }
}

/// The numbers of `given` in `format`.
fn rounded<M: Machine>(
    kernels: &Kernels<M>,
    given: Factor<'_>,
    format: Precision,
) -> Result<Buffer<M>, Trouble<M>> {
    let (rows, columns) = given.shape();
    let count = rows * columns;
    let mut copy = kernels.buffer((count * bytes_of(format)).div_ceil(4))?;
    let to = kernels.slice_mut(&mut copy);
    match given.format() {
        Precision::F32 => kernels.convert(format, &to, given.slice(), count)?,
        Precision::F16 => kernels.f16_to_bf16(&to, given.slice(), count)?,
        Precision::Bf16 => unreachable!("both passes are in bf16"),
    }
    Ok(copy)
}
