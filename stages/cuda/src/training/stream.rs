//! The residual stream between two operations, and the tape that remembers them.

use std::{cell::RefCell, rc::Rc};

use dfdx::prelude::{OwnedTape, PutTape, Rank0, SplitTape, Tape, Tensor, Trace, ZerosTensor};

use super::parameters::Grads;
use crate::{
    buffer::Buffer,
    machine::{Machine, Trouble},
};

/// Rows of the stream, and their gradient once the backward pass has it.
#[derive(Debug, Clone)]
pub struct Stream<M: Machine> {
    /// `[rows, n_embd]`.
    pub values: Rc<Buffer<M>>,
    /// One operation leaves it here, the one before takes it.
    pub gradient: Rc<RefCell<Option<Buffer<M>>>>,
}

impl<M: Machine> Stream<M> {
    /// With `values`.
    pub fn new(values: Buffer<M>) -> Self {
        Self { values: Rc::new(values), gradient: Rc::default() }
    }

    /// Takes the gradient.
    ///
    /// # Panics
    ///
    /// If the operation that reads the stream has not left it.
    pub fn upstream(&self) -> Buffer<M> {
        self.gradient.take().expect("operations run backwards")
    }
}

/// A tape of `dfdx`, or none where nothing is trained.
pub struct Recorder<M: Machine>(Option<OwnedTape<f32, M::Device>>);

impl<M: Machine> Recorder<M> {
    /// Remembers nothing.
    pub fn nothing() -> Self {
        Self(None)
    }

    /// Remembers operations, whose gradients are added to `gradients`.
    pub fn new(machine: &M, gradients: Grads<M>) -> Result<Self, Trouble<M>> {
        let start: Tensor<Rank0, f32, M::Device> = machine.device().try_zeros()?;
        let (_, tape) = start.traced(gradients).split_tape();
        Ok(Self(Some(tape)))
    }

    /// Whether operations are remembered, so that they must keep what their gradients need.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Remembers an operation by its backward pass.
    pub fn record(&mut self, backward: impl FnOnce(&mut Grads<M>) -> Result<(), Trouble<M>> + 'static) {
        if let Some(tape) = &mut self.0 {
            tape.add_backward_op(backward);
        }
    }

    /// Runs all that was remembered backwards and returns the gradients.
    ///
    /// # Panics
    ///
    /// If nothing was to be remembered.
    pub fn backward(self, machine: &M) -> Result<Grads<M>, Trouble<M>> {
        let end: Tensor<Rank0, f32, M::Device> = machine.device().try_zeros()?;
        machine.backward(end.put_tape(self.0.expect("operations were remembered")))
    }
}
