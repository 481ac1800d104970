//! Which rows of a batch belong to which prompt, on the device.

use dfdx::prelude::Storage;

use crate::{
    launch::Kernels,
    machine::{Machine, Numbers, Trouble},
    slice::Slice,
};

/// Where the prompts of a batch lie, as kernels read it.
#[derive(Debug)]
pub struct Prompts<M: Machine> {
    words: Numbers<M>,
    count: usize,
    positions: usize,
    longest: usize,
}

impl<M: Machine> Prompts<M> {
    /// Prompt `i` has the rows `offsets[i]..offsets[i + 1]`, at least one.
    pub fn new(kernels: &Kernels<M>, offsets: &[usize]) -> Result<Self, Trouble<M>> {
        let (count, positions) = (offsets.len() - 1, offsets[offsets.len() - 1]);
        let lengths = || offsets.windows(2).map(|prompt| prompt[1] - prompt[0]);
        let mut words: Vec<u32> = Vec::with_capacity(3 * (count + positions));
        words.extend(offsets.iter().map(|offset| *offset as u32));
        words.extend(
            lengths().enumerate().flat_map(|(owner, length)| std::iter::repeat_n(owner as u32, length)),
        );
        words.extend(lengths().flat_map(|length| 0..length as u32));
        words.extend(0..count as u32);
        words.extend(lengths().map(|length| length as u32 - 1));
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let longest = lengths().max().unwrap_or_default();
        Ok(Self { words: kernels.upload(&bytes)?, count, positions, longest })
    }

    /// Number of prompts.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Rows of all prompts.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Rows of the longest prompt.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Rows that a computation has: all, or one a prompt.
    pub fn rows(&self, last: bool) -> usize {
        if last { self.count } else { self.positions }
    }

    fn word<'a>(&'a self, machine: &M, at: usize) -> Slice<'a> {
        debug_assert!(at <= Storage::<f32>::len(machine.device(), &self.words));
        Slice::of(machine, &self.words).skip(4 * at)
    }

    /// `[count + 1]`: where each prompt begins, and where the last one ends.
    pub fn offsets<'a>(&'a self, machine: &M) -> Slice<'a> {
        self.word(machine, 0)
    }

    /// Whose each row is: of all positions, or of the `last` ones.
    pub fn owners<'a>(&'a self, machine: &M, last: bool) -> Slice<'a> {
        let first = self.count + 1;
        self.word(machine, if last { first + 2 * self.positions } else { first })
    }

    /// At which position of its prompt each row is.
    pub fn places<'a>(&'a self, machine: &M, last: bool) -> Slice<'a> {
        let first = self.count + 1 + self.positions;
        self.word(machine, if last { first + self.positions + self.count } else { first })
    }
}

/// What is dropped at one site of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Dropped<'a> {
    /// One key a prompt; `None` where nothing is dropped.
    pub keys: Option<Slice<'a>>,
    /// An element is dropped when its draw is below this.
    pub threshold: u64,
    /// What a kept element is multiplied by.
    pub kept: f32,
}

impl Dropped<'_> {
    /// Nothing is dropped.
    pub const NOTHING: Self = Self { keys: None, threshold: 0, kept: 1.0 };
}
