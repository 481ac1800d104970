//! Products on the matrix unit of an Intel processor (AMX), as precise as in f32.
//!
//! The unit multiplies bf16 numbers and adds in f32, 16 times as many a cycle as the vector unit
//! does in f32. An f32 number is the exact sum of three bf16 numbers, each the nearest to what the
//! ones before leave; of the nine products of two such sums the six largest are added. The other
//! three are below 2⁻²⁵ of the whole, half a unit in the last place of f32 (Henry, Tang and
//! Heinecke, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
//! computations", 2019).
//!
//! Magnitudes are to lie in `2⁻⁹⁰..3.3e38`: below, parts are lost to zero; above, or where a
//! number is infinite, the result is not a number.
//!
//! A tile is 16 rows of 16 words; a word is two numbers that are neighbours along the sum. A panel
//! is 32 rows of the first factor or 32 columns of the second; for each [`STEP`] of the sum it has
//! six tiles, two a part.

mod buffer;
mod packing;
mod tiles;

use std::{cell::Cell, ops::Range};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use self::{
    buffer::Buffer,
    packing::{Rows, pack, pack_columns},
    tiles::Tiles,
};
use super::{
    gemm::{Matrix, MatrixMut},
    vector::Instructions,
};

/// Rows of a tile, and words of its rows.
const SIDE: usize = 16;
/// Rows or columns of a panel.
const PANEL: usize = 2 * SIDE;
/// Numbers along the sum that a tile holds.
const STEP: usize = 2 * SIDE;
/// The bf16 numbers that an f32 number is the sum of.
const PARTS: usize = 3;
/// Tiles of a panel for one step.
const TILES: usize = 2 * PARTS;
/// Numbers along the sum that are added at once, at most; panels of a block of rows then fit the L2 cache.
const DEPTH: usize = 1024;
/// Rows that one task takes at most: 768 KiB of panels.
const ROWS: usize = 4 * PANEL;

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
}

impl Packed {
    /// Bytes that it takes for `matrix`: 6 a number, in whole panels and steps.
    pub fn bytes(matrix: Matrix<'_>) -> usize {
        matrix.width().div_ceil(PANEL) * tiles_of(matrix.height()) * size_of::<Tile>()
    }

    /// Packs `matrix` on all threads of the pool.
    pub fn new(matrix: Matrix<'_>) -> Self {
        let (depth, columns) = (matrix.height(), matrix.width());
        let panel = tiles_of(depth);
        let mut tiles = Buffer::EMPTY;
        pack_columns(matrix, tiles.tiles(columns.div_ceil(PANEL) * panel));
        Self { tiles, panel }
    }

    /// All of it.
    pub fn panels(&self) -> Panels<'_> {
        Panels { tiles: self.tiles.all(), panel: self.panel, row: 0 }
    }
}

/// How many bytes may still be kept packed by whoever holds this; what has no room is packed at every
/// product.
#[derive(Debug)]
pub struct PackingRoom(usize);

impl Default for PackingRoom {
    /// 1 GiB where there is a unit: twice what the blocks of GPT-2 (124M) take.
    fn default() -> Self {
        Self(if is_available() { 1 << 30 } else { 0 })
    }
}

impl PackingRoom {
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
        is_whole.then(|| Self { tiles: &self.tiles[tiles_of(rows.start)..], ..self })
    }

    /// The given rows of panel `panel`, whose first begins a step.
    fn get(self, panel: usize, rows: &Range<usize>) -> &'a [Tile] {
        let first = panel * self.panel + tiles_of(rows.start - self.row);
        &self.tiles[first..first + tiles_of(rows.len())]
    }
}

/// Whether this processor has the unit and the system lets this process use it.
pub fn is_available() -> bool {
    tiles::is_available()
}

/// Whether a product `[rows, depth]` · `[depth, columns]` is for the unit: there is one, and the
/// product fills its tiles.
pub(super) fn takes(rows: usize, depth: usize, columns: usize) -> bool {
    rows >= PANEL && depth >= STEP && columns >= PANEL && is_available()
}

/// `c += alpha · a·b` on all threads of the pool; the shapes fit. `begin` is called for each row of
/// `c` before anything is added to it, and `packed` is `b`, if that was packed.
///
/// A row of `c` depends on its row of `a` and on `b` alone.
pub(super) fn multiply_add(
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    packed: Option<Panels<'_>>,
    c: MatrixMut<'_>,
    begin: impl Fn(&mut [f32]) + Sync,
) {
    let (rows, columns, depth) = (a.height(), b.width(), a.width());
    let (c, stride) = c.into_rows();
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
    if let Some(packed) = packed {
        return blocks(c, 0..depth, packed);
    }
    let mut buffer = SECOND.take();
    for start in (0..depth).step_by(piece) {
        let depth = start..(start + piece).min(depth);
        let panel = tiles_of(depth.len());
        let tiles = buffer.tiles(columns.div_ceil(PANEL) * panel);
        pack_columns(b.rows(depth.clone()), tiles);
        blocks(c, depth, Panels { tiles, panel, row: start });
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
    let panel = tiles_of(depth.len());
    let mut buffer = FIRST.take();
    let a_panels = buffer.tiles(a.height().div_ceil(PANEL) * panel);
    pack(Instructions::best(), a.columns(depth.clone()), alpha, Rows::Lines, a_panels);
    let tiles = Tiles::new();
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

/// Tiles of a panel for `depth` numbers along the sum.
fn tiles_of(depth: usize) -> usize {
    depth.div_ceil(STEP) * TILES
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::{
        super::gemm::{Target, Threads, multiply_by_vectors},
        *,
    };

    fn noise(seed: u32, length: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..length).map(|_| next()).collect()
    }

    fn product(alpha: f32, a: Matrix<'_>, b: Matrix<'_>, target: Target, c: MatrixMut<'_>) {
        multiply_add(alpha, a, b, None, c, |row| {
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
    fn greatest_error(c: &[f32], a: Matrix<'_>, b: Matrix<'_>, before: f64) -> f64 {
        let mut greatest = 0.0f64;
        for (i, row) in c.chunks_exact(b.width() + 1).enumerate() {
            assert_eq!(row[0].to_bits(), 1f32.to_bits(), "the column beside the result");
            for (j, got) in row[1..].iter().enumerate() {
                let product = |k| f64::from(a.number(i, k)) * f64::from(b.number(k, j));
                let wanted = before + 0.5 * (0..a.width()).map(product).sum::<f64>();
                greatest = greatest.max((f64::from(*got) - wanted).abs());
            }
        }
        greatest
    }

    #[test]
    fn products_of_any_shape_and_layout_are_as_precise_as_by_vectors() {
        for (rows, depth, columns) in [(1, 32, 32), (33, 40, 50), (70, 769, 97), (32, 1, 1), (130, 64, 200)] {
            let (a, b) = (noise(1, rows * depth), noise(2, depth * columns));
            for (of_a, of_b) in [(false, false), (false, true), (true, false), (true, true)] {
                let (a, b) = (either_way(&a, rows, depth, of_a), either_way(&b, depth, columns, of_b));
                for (target, before) in [(Target::Replace, 0.0), (Target::Add, 1.0)] {
                    let (mut c, mut by_vectors) =
                        (vec![1.0; rows * (columns + 1)], vec![1.0; rows * (columns + 1)]);
                    let view = |c| MatrixMut::new(c, rows, columns + 1).columns(1..columns + 1);
                    product(0.5, a, b, target, view(&mut c));
                    multiply_by_vectors(Threads::All, 0.5, a, b, target, view(&mut by_vectors));
                    let error = greatest_error(&c, a, b, before);
                    let limit = 1.5 * greatest_error(&by_vectors, a, b, before) + 3e-7;
                    assert!(
                        error <= limit,
                        "{rows} {depth} {columns} {of_a} {of_b} {target:?}: {error:e}, not up to {limit:e}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_on_any_number_of_threads() {
        let (rows, depth, columns) = (300, 800, 100);
        let (a, b) = (noise(3, rows * depth), noise(4, depth * columns));
        let product = |rows: Range<usize>| {
            let mut c = vec![0.0; rows.len() * columns];
            let a = Matrix::new(&a, 300, depth).rows(rows.clone());
            let view = MatrixMut::new(&mut c, rows.len(), columns);
            product(1.0, a, Matrix::new(&b, depth, columns), Target::Replace, view);
            bits(&c)
        };
        let all = product(0..rows);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            assert!(pool.install(|| product(0..rows)) == all, "{threads} threads");
        }
        for row in [0, 31, 200, 299] {
            assert_eq!(product(row..row + 1), all[row * columns..(row + 1) * columns], "row {row}");
        }
    }

    #[test]
    fn packed_once_a_factor_gives_the_same_bits() {
        let (rows, depth, columns) = (70, 1610, 100);
        let (a, b) = (noise(9, rows * depth), noise(10, depth * columns));
        let (a, b) = (Matrix::new(&a, rows, depth), Matrix::new(&b, depth, columns));
        let packed = Packed::new(b);
        let product = |along: &Range<usize>, columns: &Range<usize>, panels| {
            let mut c = vec![1.0; rows * columns.len()];
            let (a, b) = (a.columns(along.clone()), b.rows(along.clone()).columns(columns.clone()));
            let view = MatrixMut::new(&mut c, rows, columns.len());
            multiply_add(1.0, a, b, panels, view, |row| row.fill(2.0));
            bits(&c)
        };
        for along in [0..depth, 32..depth, 800..1568] {
            for columns in [0..columns, 0..40, 64..96, 32..99] {
                let panels = packed.panels().of_rows(along.clone(), depth);
                let panels = panels.and_then(|panels| panels.from_column(columns.start));
                assert!(panels.is_some(), "steps and panels begin there");
                let once = product(&along, &columns, panels);
                assert!(once == product(&along, &columns, None), "rows {along:?}, columns {columns:?}");
            }
        }
        assert!(packed.panels().from_column(16).is_none(), "no panel begins there");
        for cut in [16..depth, 0..16] {
            assert!(packed.panels().of_rows(cut, depth).is_none(), "no whole steps");
        }
    }

    #[test]
    fn not_a_number_stays_so() {
        for bad in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::INFINITY] {
            let (mut a, b) = (noise(5, 32 * 32), noise(6, 32 * 32));
            a[40] = bad;
            let mut c = vec![0.0; 32 * 32];
            let view = MatrixMut::new(&mut c, 32, 32);
            product(1.0, Matrix::new(&a, 32, 32), Matrix::new(&b, 32, 32), Target::Replace, view);
            assert!(c[32..64].iter().all(|x| x.is_nan()), "the row of {bad}");
            assert!(c[..32].iter().chain(&c[64..]).all(|x| x.is_finite()), "the other rows");
        }
    }

    #[test]
    fn the_unit_and_plain_rust_agree() {
        if !is_available() {
            eprintln!("skipped: this processor has no matrix unit");
            return;
        }
        let (a, b) = (noise(7, 32 * 96), noise(8, 96 * 32));
        let mut panels = [vec![Tile::zeroed(); 3 * TILES], vec![Tile::zeroed(); 3 * TILES]];
        let instructions = Instructions::best();
        pack(instructions, Matrix::new(&a, 32, 96), 1.0, Rows::Lines, &mut panels[0]);
        pack(instructions, Matrix::new(&b, 96, 32).transposed(), 1.0, Rows::Pairs, &mut panels[1]);
        let (mut by_unit, mut plainly) = (vec![1.0; 32 * 32], vec![1.0; 32 * 32]);
        Tiles::new().multiply_add(&panels[0], &panels[1], &mut by_unit, 32, (&panels[1], 0));
        tiles::multiply_add_plainly(&panels[0], &panels[1], &mut plainly, 32);
        for (by_unit, plainly) in by_unit.iter().zip(&plainly) {
            assert!((by_unit - plainly).abs() < 5e-6, "{by_unit}, not {plainly}");
        }
    }
}
