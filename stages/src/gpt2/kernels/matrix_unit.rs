//! Products on units that multiply bf16 numbers and add in f32: the matrix unit of an Intel processor
//! (AMX), and scalar products of pairs by vectors (AVX512-BF16).
//!
//! The matrix unit multiplies 16 times as many numbers a cycle as the vector unit does in f32, pairs by
//! vectors are twice as many. Factors that are bf16 numbers are multiplied as they are, on both. On the
//! matrix unit so are all others, as precisely as in f32: an f32 number is the exact sum of three bf16
//! numbers, each the nearest to what the ones before leave; of the nine products of two such sums the
//! six largest are added. The other three are below 2⁻²⁵ of the whole, half a unit in the last place of
//! f32 (Henry, Tang and Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for
//! higher-precision computations", 2019).
//!
//! Magnitudes are to lie in `2⁻⁹⁰..3.3e38`: below, parts are lost to zero; above, or where a
//! number is infinite, the result is not a number.
//!
//! A tile is 16 rows of 16 words; a word is two numbers that are neighbours along the sum. A panel
//! is 32 rows of the first factor or 32 columns of the second; for each [`STEP`] of the sum it has
//! two tiles a part.

mod buffer;
mod packing;
mod tiles;

use std::{cell::Cell, ops::Range};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use self::{
    buffer::Buffer,
    packing::{Rows, pack, pack_columns},
    tiles::{Tiles, Unit},
};
use super::{
    gemm::{Matrix, MatrixMut},
    vector::Instructions,
};
use crate::gpt2::Precision;

/// Rows of a tile, and words of its rows.
const SIDE: usize = 16;
/// Rows or columns of a panel.
const PANEL: usize = 2 * SIDE;
/// Numbers along the sum that a tile holds.
const STEP: usize = 2 * SIDE;
/// Numbers along the sum that are added at once, at most; panels of a block of rows then fit the L2 cache.
const DEPTH: usize = 1024;
/// Rows that one task takes at most: 768 KiB of panels in three parts.
const ROWS: usize = 4 * PANEL;

/// How many bf16 numbers add up to a number of a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// It is one.
    One,
    /// Any f32 number is the sum of so many.
    Three,
}

impl Parts {
    /// Of factors rounded to `precision`.
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::Bf16 => Self::One,
            Precision::F32 | Precision::F16 => Self::Three,
        }
    }

    /// Tiles of a panel for one step.
    fn tiles(self) -> usize {
        match self {
            Self::One => 2,
            Self::Three => 6,
        }
    }

    /// Tiles of a panel for `depth` numbers along the sum.
    fn tiles_of(self, depth: usize) -> usize {
        depth.div_ceil(STEP) * self.tiles()
    }
}

type Words = [u32; SIDE];

#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Tile([Words; SIDE]);

thread_local! {
    /// Kept between products, since fresh pages cost more than packing does.
    static FIRST: Cell<Buffer> = const { Cell::new(Buffer::EMPTY) };
    static SECOND: Cell<Buffer> = const { Cell::new(Buffer::EMPTY) };
}

/// The second factor of many products, packed once.
#[derive(Debug)]
pub struct Packed {
    tiles: Buffer,
    panel: usize,
    parts: Parts,
}

impl Packed {
    /// Bytes that it takes for `matrix`, whose numbers are of `precision`: 2 a number in bf16, otherwise
    /// 6, in whole panels and steps.
    pub fn bytes(matrix: Matrix<'_>, precision: Precision) -> usize {
        matrix.width().div_ceil(PANEL) * Parts::of(precision).tiles_of(matrix.height()) * size_of::<Tile>()
    }

    /// Packs `matrix`, whose numbers are of `precision`, on all threads of the pool.
    pub fn new(matrix: Matrix<'_>, precision: Precision) -> Self {
        let (depth, columns, parts) = (matrix.height(), matrix.width(), Parts::of(precision));
        let panel = parts.tiles_of(depth);
        let mut tiles = Buffer::EMPTY;
        pack_columns(matrix, parts, tiles.tiles(columns.div_ceil(PANEL) * panel));
        Self { tiles, panel, parts }
    }

    /// All of it.
    pub fn panels(&self) -> Panels<'_> {
        Panels { tiles: self.tiles.all(), panel: self.panel, parts: self.parts, row: 0 }
    }
}

/// How many bytes may still be kept packed by whoever holds this; what has no room is packed at every
/// product.
#[derive(Debug)]
pub struct PackingRoom(usize);

impl PackingRoom {
    /// 1 GiB where there is a unit for factors of `precision`: twice what the blocks of GPT-2 (124M) take
    /// in f32.
    pub fn new(precision: Precision) -> Self {
        Self(if is_available(precision) { 1 << 30 } else { 0 })
    }

    /// Takes `bytes` of it, if there are so many.
    pub fn take(&mut self, bytes: usize) -> bool {
        let rest = self.0.checked_sub(bytes);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }
}

/// Some rows of a second factor, packed; or some columns of them.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    tiles: &'a [Tile],
    /// Tiles of a panel.
    panel: usize,
    parts: Parts,
    /// The row of the factor with which a panel begins.
    row: usize,
}

impl<'a> Panels<'a> {
    /// The columns from `first` on, where a panel begins with it.
    pub fn from_column(self, first: usize) -> Option<Self> {
        let tiles = first.is_multiple_of(PANEL).then(|| &self.tiles[first / PANEL * self.panel..])?;
        Some(Self { tiles, ..self })
    }

    /// The given rows of a factor that has `height` rows, where they are whole steps.
    pub fn of_rows(self, rows: Range<usize>, height: usize) -> Option<Self> {
        let ends = rows.end == height || rows.end.is_multiple_of(STEP);
        let is_whole = rows.start.is_multiple_of(STEP) && ends;
        is_whole.then(|| Self { tiles: &self.tiles[self.parts.tiles_of(rows.start)..], ..self })
    }

    /// The given rows of panel `panel`, whose first begins a step.
    fn get(self, panel: usize, rows: &Range<usize>) -> &'a [Tile] {
        let first = panel * self.panel + self.parts.tiles_of(rows.start - self.row);
        &self.tiles[first..first + self.parts.tiles_of(rows.len())]
    }
}

/// What multiplies factors of `precision` on this processor faster than vectors of f32 do, as the manuals
/// call it, where the system lets this process use it.
pub fn name(precision: Precision) -> Option<&'static str> {
    Unit::best(Parts::of(precision)).map(Unit::name)
}

/// Whether there is a unit for factors of `precision`.
pub fn is_available(precision: Precision) -> bool {
    name(precision).is_some()
}

/// Whether a product `[rows, depth]` · `[depth, columns]` of factors of `precision` is for a unit: there
/// is one, and the product fills its tiles.
pub(super) fn takes(precision: Precision, rows: usize, depth: usize, columns: usize) -> bool {
    rows >= PANEL && depth >= STEP && columns >= PANEL && is_available(precision)
}

/// `c += alpha · a·b` on all threads of the pool; the shapes fit, and the numbers of `alpha · a` and of
/// `b` are of `precision`. `begin` is called for each row of `c` before anything is added to it, and
/// `packed` is `b`, if that was packed.
///
/// A row of `c` depends on its row of `a` and on `b` alone.
pub(super) fn multiply_add(
    precision: Precision,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    packed: Option<Panels<'_>>,
    c: MatrixMut<'_>,
    begin: impl Fn(&mut [f32]) + Sync,
) {
    let (rows, columns, depth) = (a.height(), b.width(), a.width());
    let (c, stride) = c.into_rows();
    let parts = Parts::of(precision);
    if rows == 0 || columns == 0 {
        return;
    }
    let piece = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).next_multiple_of(STEP);
    let block = rows.div_ceil(rayon::current_num_threads()).next_multiple_of(PANEL).min(ROWS);
    let blocks = |c: &mut [f32], depths: Range<usize>, panels: Panels<'_>| {
        c.par_chunks_mut(block * stride).enumerate().for_each(|(i, c)| {
            let a = a.rows(i * block..((i + 1) * block).min(rows));
            if depths.start == 0 {
                c.chunks_mut(stride).for_each(|row| begin(&mut row[..columns]));
            }
            for start in depths.clone().step_by(piece) {
                let depth = start..(start + piece).min(depths.end);
                multiply_add_rows(alpha, a, depth, panels, c, stride, columns);
            }
        });
    };
    if let Some(packed) = packed.filter(|packed| packed.parts == parts) {
        return blocks(c, 0..depth, packed);
    }
    let mut buffer = SECOND.take();
    for start in (0..depth).step_by(piece) {
        let depth = start..(start + piece).min(depth);
        let panel = parts.tiles_of(depth.len());
        let tiles = buffer.tiles(columns.div_ceil(PANEL) * panel);
        pack_columns(b.rows(depth.clone()), parts, tiles);
        blocks(c, depth, Panels { tiles, panel, parts, row: start });
    }
    SECOND.set(buffer);
}

/// Adds to `c` what the numbers `depth` along the sum add, at most [`DEPTH`], on this thread; `a` and
/// `c` have at most [`ROWS`] rows.
fn multiply_add_rows(
    alpha: f32,
    a: Matrix<'_>,
    depth: Range<usize>,
    b: Panels<'_>,
    c: &mut [f32],
    stride: usize,
    columns: usize,
) {
    let panel = b.parts.tiles_of(depth.len());
    let mut buffer = FIRST.take();
    let a_panels = buffer.tiles(a.height().div_ceil(PANEL) * panel);
    pack(Instructions::best(), a.columns(depth.clone()), alpha, Rows::Lines, b.parts, a_panels);
    let tiles = Tiles::new(b.parts);
    let count = columns.div_ceil(PANEL);
    for of_b in 0..count {
        let column = of_b * PANEL;
        let width = PANEL.min(columns - column);
        let (b, next) = (b.get(of_b, &depth), b.get((of_b + 1) % count, &depth));
        for (of_a, a_panel) in a_panels.chunks_exact(panel).enumerate() {
            let row = of_a * PANEL;
            let height = PANEL.min(a.height() - row);
            let c = &mut c[row * stride + column..];
            if height == PANEL && width == PANEL {
                tiles.multiply_add(a_panel, b, c, stride, (next, of_a));
            } else {
                let mut whole = [0.0; PANEL * PANEL];
                for (whole, c) in whole.chunks_exact_mut(PANEL).zip(c.chunks(stride)).take(height) {
                    whole[..width].copy_from_slice(&c[..width]);
                }
                tiles.multiply_add(a_panel, b, &mut whole, PANEL, (next, of_a));
                for (whole, c) in whole.chunks_exact(PANEL).zip(c.chunks_mut(stride)).take(height) {
                    c[..width].copy_from_slice(&whole[..width]);
                }
            }
        }
    }
    drop(tiles);
    FIRST.set(buffer);
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{
        super::{
            gemm::{Target, Threads, multiply_by_vectors},
            rounding::round,
        },
        *,
    };

    /// Of factors in one part and in three.
    const PRECISIONS: [Precision; 2] = [Precision::Bf16, Precision::F32];

    /// Numbers of `precision` between -½ and ½.
    fn noise(precision: Precision, seed: u32, length: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        let mut numbers: Vec<f32> = (0..length).map(|_| next()).collect();
        round(precision, &mut numbers);
        numbers
    }

    fn product(
        precision: Precision,
        alpha: f32,
        a: Matrix<'_>,
        b: Matrix<'_>,
        target: Target,
        c: MatrixMut<'_>,
    ) {
        multiply_add(precision, alpha, a, b, None, c, |row| {
            if target == Target::Replace {
                row.fill(0.0);
            }
        });
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }

    /// A matrix of `data` `[rows, cols]`, or of the same numbers where columns are contiguous.
    fn either_way(data: &[f32], rows: usize, cols: usize, transposed: bool) -> Matrix<'_> {
        if transposed { Matrix::new(data, cols, rows).transposed() } else { Matrix::new(data, rows, cols) }
    }

    /// The greatest error of columns 1.. of `c`, whose first column was 1 and must still be.
    fn greatest_error(c: &[f32], alpha: f32, a: Matrix<'_>, b: Matrix<'_>, before: f64) -> f64 {
        let mut greatest = 0.0f64;
        for (i, row) in c.chunks_exact(b.width() + 1).enumerate() {
            assert_eq!(row[0].to_bits(), 1f32.to_bits(), "the column beside the result");
            for (j, got) in row[1..].iter().enumerate() {
                let product = |k| f64::from(a.number(i, k)) * f64::from(b.number(k, j));
                let wanted = before + f64::from(alpha) * (0..a.width()).map(product).sum::<f64>();
                greatest = greatest.max((f64::from(*got) - wanted).abs());
            }
        }
        greatest
    }

    #[test]
    fn products_of_any_shape_and_layout_are_as_precise_as_by_vectors() {
        let shapes = [(1, 32, 32), (33, 40, 50), (70, 769, 97), (32, 1, 1), (130, 64, 200)];
        // Pairs by vectors are added one after the other, what is added by vectors of f32 in between in parts.
        for (precision, alpha, error_ratio) in [(Precision::F32, 0.5, 1.5), (Precision::Bf16, 1.0, 3.0)] {
            for (rows, depth, columns) in shapes {
                let a = noise(precision, 1, rows * depth);
                let b = noise(precision, 2, depth * columns);
                for (of_a, of_b) in [(false, false), (false, true), (true, false), (true, true)] {
                    let (a, b) = (either_way(&a, rows, depth, of_a), either_way(&b, depth, columns, of_b));
                    for (target, before) in [(Target::Replace, 0.0), (Target::Add, 1.0)] {
                        let whole = || vec![1.0; rows * (columns + 1)];
                        let (mut c, mut by_vectors) = (whole(), whole());
                        let view = |c| MatrixMut::new(c, rows, columns + 1).columns(1..columns + 1);
                        product(precision, alpha, a, b, target, view(&mut c));
                        multiply_by_vectors(Threads::All, alpha, a, b, target, view(&mut by_vectors));
                        let error = greatest_error(&c, alpha, a, b, before);
                        let limit = error_ratio * greatest_error(&by_vectors, alpha, a, b, before) + 3e-7;
                        let what = format!("{precision} {rows} {depth} {columns} {of_a} {of_b} {target:?}");
                        assert!(error <= limit, "{what}: {error:e}, not up to {limit:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_on_any_number_of_threads() {
        let (rows, depth, columns) = (300, 800, 100);
        for precision in PRECISIONS {
            let (a, b) = (noise(precision, 3, rows * depth), noise(precision, 4, depth * columns));
            let product = |rows: Range<usize>| {
                let mut c = vec![0.0; rows.len() * columns];
                let a = Matrix::new(&a, 300, depth).rows(rows.clone());
                let view = MatrixMut::new(&mut c, rows.len(), columns);
                product(precision, 1.0, a, Matrix::new(&b, depth, columns), Target::Replace, view);
                bits(&c)
            };
            let all = product(0..rows);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                assert!(pool.install(|| product(0..rows)) == all, "{precision}, {threads} threads");
            }
            for row in [0, 31, 200, 299] {
                let wanted = &all[row * columns..(row + 1) * columns];
                assert_eq!(product(row..row + 1), wanted, "{precision}, row {row}");
            }
        }
    }

    #[test]
    fn packed_once_a_factor_gives_the_same_bits() {
        PRECISIONS.into_iter().for_each(packed_once_in);
    }

    fn packed_once_in(precision: Precision) {
        let (rows, depth, columns) = (70, 1610, 100);
        let (a, b) = (noise(precision, 9, rows * depth), noise(precision, 10, depth * columns));
        let (a, b) = (Matrix::new(&a, rows, depth), Matrix::new(&b, depth, columns));
        let packed = Packed::new(b, precision);
        let product = |along: &Range<usize>, columns: &Range<usize>, panels| {
            let mut c = vec![1.0; rows * columns.len()];
            let (a, b) = (a.columns(along.clone()), b.rows(along.clone()).columns(columns.clone()));
            let view = MatrixMut::new(&mut c, rows, columns.len());
            multiply_add(precision, 1.0, a, b, panels, view, |row| row.fill(2.0));
            bits(&c)
        };
        for along in [0..depth, 32..depth, 800..1568] {
            for columns in [0..columns, 0..40, 64..96, 32..99] {
                let panels = packed.panels().of_rows(along.clone(), depth);
                let panels = panels.and_then(|panels| panels.from_column(columns.start));
                assert!(panels.is_some(), "steps and panels begin there");
                let once = product(&along, &columns, panels);
                let anew = product(&along, &columns, None);
                assert!(once == anew, "{precision}, rows {along:?}, columns {columns:?}");
            }
        }
        assert!(packed.panels().from_column(16).is_none(), "no panel begins there");
        for cut in [16..depth, 0..16] {
            assert!(packed.panels().of_rows(cut, depth).is_none(), "no whole steps");
        }
    }

    #[test]
    fn not_a_number_stays_so() {
        for (precision, bad) in [
            (Precision::F32, f32::NAN),
            (Precision::F32, f32::from_bits(0x7fff_ffff)),
            (Precision::F32, f32::INFINITY),
            (Precision::Bf16, f32::NAN),
            (Precision::Bf16, f32::from_bits(0x7fff_ffff)),
        ] {
            let (mut a, b) = (noise(precision, 5, 32 * 32), noise(precision, 6, 32 * 32));
            a[40] = bad;
            round(precision, &mut a);
            let mut c = vec![0.0; 32 * 32];
            let view = MatrixMut::new(&mut c, 32, 32);
            product(precision, 1.0, Matrix::new(&a, 32, 32), Matrix::new(&b, 32, 32), Target::Replace, view);
            assert!(c[32..64].iter().all(|x| x.is_nan()), "{precision}, the row of {bad}");
            assert!(c[..32].iter().chain(&c[64..]).all(|x| x.is_finite()), "{precision}, the other rows");
        }
    }

    #[test]
    fn units_and_plain_rust_agree() {
        for precision in PRECISIONS {
            let Some(unit) = name(precision) else {
                eprintln!("skipped: this processor has no unit for {precision}");
                continue;
            };
            let (a, b) = (noise(precision, 7, 32 * 96), noise(precision, 8, 96 * 32));
            let parts = Parts::of(precision);
            let mut panels = [(); 2].map(|()| vec![Tile::zeroed(); parts.tiles_of(96)]);
            let instructions = Instructions::best();
            pack(instructions, Matrix::new(&a, 32, 96), 1.0, Rows::Lines, parts, &mut panels[0]);
            pack(instructions, Matrix::new(&b, 96, 32).transposed(), 1.0, Rows::Pairs, parts, &mut panels[1]);
            let (mut by_unit, mut plainly) = (vec![1.0; 32 * 32], vec![1.0; 32 * 32]);
            Tiles::new(parts).multiply_add(&panels[0], &panels[1], &mut by_unit, 32, (&panels[1], 0));
            tiles::multiply_add_plainly(parts, &panels[0], &panels[1], &mut plainly, 32);
            for (by_unit, plainly) in by_unit.iter().zip(&plainly) {
                assert!((by_unit - plainly).abs() < 5e-6, "{unit}: {by_unit}, not {plainly}");
            }
        }
    }
}
