//! Matrix products over plain slices, by the crate `gemm` or the [matrix unit](super::matrix_unit).

use std::ops::Range;

use rayon::prelude::*;

use super::matrix_unit::{self, Packed, Panels};
use crate::gpt2::Precision;

/// A matrix inside a slice: row-major, one that shares rows with others, or transposed.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: Shape,
}

/// A matrix inside a slice, to write to.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    shape: Shape,
}

/// The second factor of a product, and the same as it was packed for the [matrix unit](super::matrix_unit).
#[derive(Debug, Clone, Copy)]
pub struct Factor<'a> {
    matrix: Matrix<'a>,
    precision: Precision,
    packed: Option<Panels<'a>>,
}

impl<'a> Factor<'a> {
    /// The numbers of `matrix` are [rounded](super::rounding::round) to `precision`, as those of the first
    /// factor have to be; `packed` holds the same.
    pub fn new(matrix: Matrix<'a>, precision: Precision, packed: Option<&'a Packed>) -> Self {
        Self { matrix, precision, packed: packed.map(Packed::panels) }
    }

    /// Some of the rows.
    ///
    /// # Panics
    ///
    /// If there are no such rows.
    #[must_use]
    pub fn rows(self, range: Range<usize>) -> Self {
        let ends = self.matrix.height();
        let packed = self.packed.and_then(|panels| panels.of_rows(range.clone(), ends));
        Self { matrix: self.matrix.rows(range), packed, ..self }
    }

    /// Some of the columns.
    ///
    /// # Panics
    ///
    /// If there are no such columns.
    #[must_use]
    pub fn columns(self, range: Range<usize>) -> Self {
        let packed = self.packed.and_then(|panels| panels.from_column(range.start));
        Self { matrix: self.matrix.columns(range), packed, ..self }
    }
}

impl<'a> From<Matrix<'a>> for Factor<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Self { matrix, precision: Precision::F32, packed: None }
    }
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl Shape {
    fn new(length: usize, rows: usize, cols: usize) -> Self {
        assert_eq!(length, rows * cols, "a matrix fills its slice");
        Self { rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Positions from the first number to the end of the last.
    fn extent(self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

impl<'a> Matrix<'a> {
    /// All of `data` as a row-major matrix.
    ///
    /// # Panics
    ///
    /// If `data` has another length than `rows · cols`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, shape: Shape::new(data.len(), rows, cols) }
    }

    /// Some of the rows.
    ///
    /// # Panics
    ///
    /// If there are no such rows.
    #[must_use]
    pub fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.shape.rows, "rows of the matrix");
        let shape = Shape { rows: range.len(), ..self.shape };
        Self { data: &self.data[(range.start * shape.row_stride).min(self.data.len())..], shape }
    }

    /// Some of the columns.
    ///
    /// # Panics
    ///
    /// If there are no such columns.
    #[must_use]
    pub fn columns(self, range: Range<usize>) -> Self {
        self.transposed().rows(range).transposed()
    }

    /// Rows as columns.
    #[must_use]
    pub fn transposed(self) -> Self {
        let Shape { rows, cols, row_stride, col_stride } = self.shape;
        Self {
            shape: Shape { rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride },
            ..self
        }
    }

    /// Number of rows.
    pub fn height(self) -> usize {
        self.shape.rows
    }

    /// Number of columns.
    pub fn width(self) -> usize {
        self.shape.cols
    }

    /// Whether neighbours in a row are neighbours in the slice; otherwise those in a column are.
    pub(super) fn are_rows_contiguous(self) -> bool {
        self.shape.col_stride == 1
    }

    #[cfg(test)]
    pub(super) fn number(self, row: usize, column: usize) -> f32 {
        self.data[row * self.shape.row_stride + column * self.shape.col_stride]
    }

    /// A row of a matrix whose rows are contiguous.
    ///
    /// # Panics
    ///
    /// If there is no such row, or rows are not contiguous.
    #[inline(always)]
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        debug_assert!(self.are_rows_contiguous());
        &self.data[row * self.shape.row_stride..][..self.shape.cols]
    }
}

impl<'a> MatrixMut<'a> {
    /// All of `data` as a row-major matrix.
    ///
    /// # Panics
    ///
    /// If `data` has another length than `rows · cols`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        let shape = Shape::new(data.len(), rows, cols);
        Self { data, shape }
    }

    /// Some of the columns.
    ///
    /// # Panics
    ///
    /// If there are no such columns.
    #[must_use]
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.shape.cols, "columns of the matrix");
        let shape = Shape { cols: range.len(), ..self.shape };
        let start = range.start.min(self.data.len());
        Self { data: &mut self.data[start..], shape }
    }

    /// The slice from the first number on, and how far apart rows begin.
    pub(super) fn into_rows(self) -> (&'a mut [f32], usize) {
        (self.data, self.shape.row_stride)
    }
}

/// On how many threads a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// This one, for tasks that already run side by side.
    One,
    /// All threads of the pool.
    All,
}

/// What becomes of the numbers that the result replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `c = alpha · a·b`, or `c += alpha · a·b`; a large product on all threads by the matrix unit, where
/// there is one.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn multiply<'a>(
    threads: Threads,
    alpha: f32,
    a: Matrix<'_>,
    b: impl Into<Factor<'a>>,
    target: Target,
    c: MatrixMut<'_>,
) {
    let Factor { matrix: b, precision, packed } = b.into();
    // Multiplied by another number, the first factor is no longer of its precision.
    #[allow(clippy::float_cmp)]
    let precision = if alpha == 1.0 { precision } else { Precision::F32 };
    if threads == Threads::All && matrix_unit::takes(precision, a.height(), b.height(), b.width()) {
        check_shapes(a, b, &c);
        matrix_unit::multiply_add(precision, alpha, a, b, packed, c, |row| {
            if target == Target::Replace {
                row.fill(0.0);
            }
        });
    } else {
        multiply_by_vectors(threads, alpha, a, b, target, c);
    }
}

fn check_shapes(a: Matrix<'_>, b: Matrix<'_>, c: &MatrixMut<'_>) {
    assert!(
        b.shape.rows == a.shape.cols && c.shape.rows == a.shape.rows && c.shape.cols == b.shape.cols,
        "shapes of a product"
    );
    assert!(
        a.shape.extent() <= a.data.len() && b.shape.extent() <= b.data.len(),
        "factors lie in their slices"
    );
    assert!(c.shape.extent() <= c.data.len(), "the result lies in its slice");
}

/// As [`multiply`], always by `gemm`.
///
/// # Panics
///
/// If the shapes do not fit.
#[allow(unsafe_code)]
#[allow(clippy::needless_pass_by_value)] // `c` is a view, made for this call
pub(super) fn multiply_by_vectors(
    threads: Threads,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    target: Target,
    c: MatrixMut<'_>,
) {
    let (m, n, k) = (a.shape.rows, b.shape.cols, a.shape.cols);
    check_shapes(a, b, &c);
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: every position that `gemm` reads or writes lies in its slice, by the extents
    // checked above; the slice of `c` is exclusive, and no two positions of `c` coincide, since
    // its rows are at least as far apart as they are long.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            c.shape.col_stride as isize,
            c.shape.row_stride as isize,
            target == Target::Add,
            a.data.as_ptr(),
            a.shape.col_stride as isize,
            a.shape.row_stride as isize,
            b.data.as_ptr(),
            b.shape.col_stride as isize,
            b.shape.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `out = x·weight + bias` (or `out += …`) for rows `x` `[rows, in]`, on all threads of the pool.
///
/// A row's result is the same whatever the other rows are, so their number does not decide about
/// the matrix unit; one row alone would take another way through `gemm` and is computed beside a
/// copy of itself.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn linear(x: &[f32], weight: Factor<'_>, bias: &[f32], target: Target, out: &mut [f32]) {
    let Factor { matrix: weight, precision, packed } = weight;
    let (inputs, outputs) = (weight.shape.rows, weight.shape.cols);
    assert_eq!(bias.len(), outputs, "one bias a column");
    let rows = x.len() / inputs;
    let add_bias = |row: &mut [f32]| match target {
        Target::Replace => row.copy_from_slice(bias),
        Target::Add => row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias),
    };
    let x = Matrix::new(x, rows, inputs);
    if matrix_unit::takes(precision, usize::MAX, inputs, outputs) {
        let c = MatrixMut::new(out, rows, outputs);
        check_shapes(x, weight, &c);
        matrix_unit::multiply_add(precision, 1.0, x, weight, packed, c, add_bias);
    } else if rows == 1 {
        let (x, mut both) = (x.data.repeat(2), out.repeat(2));
        linear(&x, weight.into(), bias, target, &mut both);
        out.copy_from_slice(&both[..outputs]);
    } else {
        let tasks = out.par_chunks_mut(super::ROWS_PER_TASK * outputs);
        tasks.flat_map_iter(|rows| rows.chunks_exact_mut(outputs)).for_each(add_bias);
        let c = MatrixMut::new(out, rows, outputs);
        multiply_by_vectors(Threads::All, 1.0, x, weight, Target::Add, c);
    }
}
