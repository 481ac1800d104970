//! From numbers to tiles of bf16 parts.

use rayon::prelude::*;

use super::{PANEL, Parts, SIDE, STEP, Tile, Words};
use crate::gpt2::kernels::{
    gemm::Matrix,
    vector::{Instructions, vectorized},
};

/// The half of a word that is an odd number.
const UPPER: u32 = 0xffff_0000;

/// What the rows of a tile are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Rows or columns of the panel, as the first factor needs it.
    Lines,
    /// Pairs along the sum, as the second factor needs it.
    Pairs,
}

/// Packs a second factor on all threads of the pool.
pub(super) fn pack_columns(matrix: Matrix<'_>, parts: Parts, tiles: &mut [Tile]) {
    let (instructions, columns) = (Instructions::best(), matrix.transposed());
    // Many panels a task, since memory gives long pieces of rows faster.
    let together = columns.height().div_ceil(PANEL).div_ceil(2 * rayon::current_num_threads());
    let task = together * parts.tiles_of(matrix.height());
    tiles.par_chunks_mut(task).enumerate().for_each(|(i, panels)| {
        let lines = (i * together * PANEL)..((i + 1) * together * PANEL).min(columns.height());
        pack(instructions, columns.rows(lines), 1.0, Rows::Pairs, parts, panels);
    });
}

vectorized! {
    /// Packs `alpha` times `lines` (the lines of a factor, along the sum) as panels of tiles.
    pub(super) fn pack(lines: Matrix<'_>, alpha: f32, rows: Rows, parts: Parts, panels: &mut [Tile]) = pack_body
}

#[inline(always)]
fn pack_body<const FMA: bool>(lines: Matrix<'_>, alpha: f32, rows: Rows, parts: Parts, panels: &mut [Tile]) {
    match parts {
        Parts::One => pack_parts::<1>(lines, alpha, rows, panels),
        Parts::Three => pack_parts::<3>(lines, alpha, rows, panels),
    }
}

#[inline(always)]
fn pack_parts<const PARTS: usize>(lines: Matrix<'_>, alpha: f32, rows: Rows, panels: &mut [Tile]) {
    let steps = lines.width().div_ceil(STEP);
    // Step by step over all panels: where the columns are contiguous, whole cache lines are read.
    for step in 0..steps {
        let depth = step * STEP..((step + 1) * STEP).min(lines.width());
        for (i, panel) in panels.chunks_exact_mut(2 * PARTS * steps).enumerate() {
            let (halves, _) = panel.as_chunks_mut::<2>();
            let halves: &mut [[Tile; 2]; PARTS] =
                halves[step * PARTS..].first_chunk_mut().expect("a panel has all parts of each step");
            for half in 0..2 {
                let first = (i * PANEL + half * SIDE).min(lines.height());
                let block = lines.rows(first..(first + SIDE).min(lines.height())).columns(depth.clone());
                pack_tile(block, alpha, rows, halves.each_mut().map(|tiles| &mut tiles[half]));
            }
        }
    }
}

/// Packs at most 16 lines of at most 32 numbers; `tiles` are the parts.
#[inline(always)]
fn pack_tile<const PARTS: usize>(block: Matrix<'_>, alpha: f32, rows: Rows, tiles: [&mut Tile; PARTS]) {
    let mut turned = [0.0; SIDE * STEP];
    match (block.are_rows_contiguous(), rows) {
        (true, Rows::Lines) => tiles_of_lines(block, alpha, tiles),
        (false, Rows::Pairs) => tiles_of_pairs(block, alpha, tiles),
        (true, Rows::Pairs) => {
            for i in 0..block.height() {
                let row = block.row(i);
                for j in 0..row.len() {
                    turned[j * SIDE + i] = row[j];
                }
            }
            tiles_of_pairs(Matrix::new(&turned, STEP, SIDE).transposed(), alpha, tiles);
        }
        (false, Rows::Lines) => {
            let block = block.transposed();
            for j in 0..block.height() {
                let column = block.row(j);
                for i in 0..column.len() {
                    turned[i * STEP + j] = column[i];
                }
            }
            tiles_of_lines(Matrix::new(&turned, SIDE, STEP), alpha, tiles);
        }
    }
}

/// A row of a tile is a line, contiguous in `block`.
#[inline(always)]
fn tiles_of_lines<const PARTS: usize>(block: Matrix<'_>, alpha: f32, tiles: [&mut Tile; PARTS]) {
    for i in 0..SIDE {
        let mut line = [0.0; STEP];
        if i < block.height() {
            copy(block.row(i), &mut line);
        }
        let (line, _) = line.as_chunks::<SIDE>();
        let (low, high) = (split::<PARTS>(&line[0], alpha), split::<PARTS>(&line[1], alpha));
        for part in 0..PARTS {
            let words = &mut tiles[part].0[i];
            for j in 0..SIDE / 2 {
                words[j] = pair(low[part][2 * j], low[part][2 * j + 1]);
                words[SIDE / 2 + j] = pair(high[part][2 * j], high[part][2 * j + 1]);
            }
        }
    }
}

/// A row of a tile is a pair along the sum; in `block` its words' halves are contiguous.
#[inline(always)]
fn tiles_of_pairs<const PARTS: usize>(block: Matrix<'_>, alpha: f32, tiles: [&mut Tile; PARTS]) {
    let block = block.transposed();
    for i in 0..SIDE {
        let (mut even, mut odd) = ([0.0; SIDE], [0.0; SIDE]);
        if 2 * i < block.height() {
            copy(block.row(2 * i), &mut even);
        }
        if 2 * i + 1 < block.height() {
            copy(block.row(2 * i + 1), &mut odd);
        }
        let (even, odd) = (split::<PARTS>(&even, alpha), split::<PARTS>(&odd, alpha));
        for part in 0..PARTS {
            let words = &mut tiles[part].0[i];
            for j in 0..SIDE {
                words[j] = pair(even[part][j], odd[part][j]);
            }
        }
    }
}

/// Copies `from` to the beginning of `to`.
#[inline(always)]
fn copy<const N: usize>(from: &[f32], to: &mut [f32; N]) {
    /// Apart, or else both ways become one call of `memcpy`: a tenth of a product's time.
    #[cold]
    #[inline(never)]
    fn copy_fewer(from: &[f32], to: &mut [f32]) {
        to[..from.len()].copy_from_slice(from);
    }
    match from.first_chunk() {
        Some(from) => *to = *from,
        None => copy_fewer(from, to),
    }
}

/// Words whose upper halves are the bf16 parts of `alpha · x`; the sum of three is exact, and one is if
/// that is a bf16 number.
///
/// What is not finite has a part that is not a number: a NaN may be rounded to zero, but stays in
/// what is left, and infinity leaves a NaN.
#[inline(always)]
fn split<const PARTS: usize>(x: &[f32; SIDE], alpha: f32) -> [Words; PARTS] {
    let mut parts = [[0; SIDE]; PARTS];
    for i in 0..SIDE {
        let mut rest = alpha * x[i];
        for part in 0..PARTS - 1 {
            let nearest = rest.to_bits().wrapping_add(0x8000) & UPPER;
            parts[part][i] = nearest;
            rest -= f32::from_bits(nearest);
        }
        parts[PARTS - 1][i] = rest.to_bits();
    }
    parts
}

#[inline(always)]
fn pair(even: u32, odd: u32) -> u32 {
    even >> 16 | odd & UPPER
}
