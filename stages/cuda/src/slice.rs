//! Parts of device buffers, with their bounds and how long they live.

use std::marker::PhantomData;

use pipe_stages::gpt2::Precision;

use crate::machine::{Machine, Numbers, RawFactor};
use dfdx::prelude::Storage;

/// Bytes of a number.
pub fn bytes_of(format: Precision) -> usize {
    match format {
        Precision::F32 => 4,
        Precision::F16 | Precision::Bf16 => 2,
    }
}

/// Bytes on the device that a kernel reads.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    address: u64,
    bytes: usize,
    buffer: PhantomData<&'a ()>,
}

/// Bytes on the device that a kernel writes.
#[derive(Debug)]
pub struct SliceMut<'a> {
    address: u64,
    bytes: usize,
    buffer: PhantomData<&'a mut ()>,
}

impl<'a> Slice<'a> {
    /// All of `numbers`.
    pub fn of<M: Machine>(machine: &M, numbers: &'a Numbers<M>) -> Self {
        let bytes = 4 * Storage::<f32>::len(machine.device(), numbers);
        Self { address: M::address(numbers), bytes, buffer: PhantomData }
    }

    /// What lies behind the first `bytes`.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[must_use]
    pub fn skip(self, bytes: usize) -> Self {
        assert!(bytes <= self.bytes, "a part of a buffer lies in it");
        Self { address: self.address + bytes as u64, bytes: self.bytes - bytes, ..self }
    }

    /// The address, once it is sure that there are `bytes`.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn checked(self, bytes: usize) -> u64 {
        assert!(bytes <= self.bytes, "a kernel reads what is there: {bytes} of {} bytes", self.bytes);
        self.address
    }
}

impl<'a> SliceMut<'a> {
    /// All of `numbers`.
    pub fn of<M: Machine>(machine: &M, numbers: &'a mut Numbers<M>) -> Self {
        let bytes = 4 * Storage::<f32>::len(machine.device(), numbers);
        Self { address: M::address(numbers), bytes, buffer: PhantomData }
    }

    /// As [`Slice::skip`].
    #[must_use]
    pub fn skip(self, bytes: usize) -> Self {
        let Slice { address, bytes, .. } = self.read().skip(bytes);
        Self { address, bytes, buffer: PhantomData }
    }

    /// Two views whose rows are columns of the same wider rows: from the start, and behind `bytes`.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn columns(self, bytes: usize) -> (SliceMut<'a>, SliceMut<'a>) {
        let second = Self { buffer: PhantomData, ..self }.skip(bytes);
        (self, second)
    }

    /// The same to read from.
    pub fn read(&self) -> Slice<'_> {
        Slice { address: self.address, bytes: self.bytes, buffer: PhantomData }
    }

    /// As [`Slice::checked`].
    pub fn checked(&self, bytes: usize) -> u64 {
        self.read().checked(bytes)
    }
}

/// A row-major matrix in a slice, whose rows may be part of wider ones.
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    slice: Slice<'a>,
    format: Precision,
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// The first `rows · columns` numbers.
    pub fn new(slice: Slice<'a>, format: Precision, rows: usize, columns: usize) -> Self {
        Self { slice, format, rows, columns, stride: columns, transposed: false }
    }

    /// The columns from `first` on, `count` of them.
    ///
    /// # Panics
    ///
    /// If it is transposed, or has no such columns.
    #[must_use]
    pub fn columns(self, first: usize, count: usize) -> Self {
        assert!(!self.transposed && first + count <= self.columns, "columns of the matrix");
        Self { slice: self.slice.skip(first * bytes_of(self.format)), columns: count, ..self }
    }

    /// Rows as columns.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as the product sees them.
    pub fn shape(self) -> (usize, usize) {
        if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }

    /// What it lies in, from its first number on.
    pub fn slice(self) -> Slice<'a> {
        self.slice
    }

    /// The format of its numbers.
    pub fn format(self) -> Precision {
        self.format
    }

    /// Without bounds, once they are checked.
    ///
    /// # Panics
    ///
    /// If it goes beyond its slice.
    pub fn raw(self) -> RawFactor {
        let extent = extent(self.rows, self.columns, self.stride) * bytes_of(self.format);
        RawFactor { address: self.slice.checked(extent), stride: self.stride, transposed: self.transposed }
    }
}

/// Numbers from the first of a matrix to behind its last.
pub fn extent(rows: usize, columns: usize, stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * stride + columns }
}
