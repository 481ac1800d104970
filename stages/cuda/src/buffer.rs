//! Buffers of one computation.

use std::ops::{Deref, DerefMut};

use crate::machine::{Machine, Numbers, Trouble};

/// Numbers that, most of the time, hold whatever was in their memory before.
///
/// `dfdx` fills each of its buffers with zeros, one more pass over memory for what is overwritten at
/// once; the machine keeps these to use them again as they are.
#[derive(Debug)]
pub struct Buffer<M: Machine> {
    machine: M,
    numbers: Option<Numbers<M>>,
    /// Whether the machine gave it as scratch; else it is `dfdx`'s.
    is_scratch: bool,
}

impl<M: Machine> Buffer<M> {
    /// Room for `count` numbers, to be written before they are read.
    pub fn new(machine: &M, count: usize) -> Result<Self, Trouble<M>> {
        let numbers = Some(machine.scratch(count)?);
        Ok(Self { machine: machine.clone(), numbers, is_scratch: true })
    }

    /// `count` zeros.
    pub fn zeros(machine: &M, count: usize) -> Result<Self, Trouble<M>> {
        let numbers = Some(machine.zeros(count)?);
        Ok(Self { machine: machine.clone(), numbers, is_scratch: false })
    }
}

impl<M: Machine> Deref for Buffer<M> {
    type Target = Numbers<M>;

    fn deref(&self) -> &Numbers<M> {
        self.numbers.as_ref().expect("they are taken only at the end")
    }
}

impl<M: Machine> DerefMut for Buffer<M> {
    fn deref_mut(&mut self) -> &mut Numbers<M> {
        self.numbers.as_mut().expect("they are taken only at the end")
    }
}

impl<M: Machine> Drop for Buffer<M> {
    fn drop(&mut self) {
        if let Some(numbers) = self.numbers.take()
            && self.is_scratch
        {
            self.machine.recycle(numbers);
        }
    }
}
