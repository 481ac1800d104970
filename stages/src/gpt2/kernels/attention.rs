//! Causal self-attention over ragged rows.
//!
//! Position `t` of a prompt attends to the positions `0..=t` of the same prompt. Queries go in
//! groups; a group multiplies only with the keys up to its last position.

use rayon::prelude::*;

use super::{
    gemm::{Matrix, MatrixMut, Target, Threads, multiply},
    vector::{Instructions, LANES, dot_body, exp, mul_add, vectorized},
};

/// Queries of a group.
const GROUP: usize = 64;

/// Attention of every position, on all threads of the pool.
///
/// `qkv` is `[positions, 3·n_embd]`, the columns q | k | v; prompt `i` has the positions
/// `offsets[i]..offsets[i + 1]`; `out` is `[positions, n_embd]`, head after head.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn causal(instructions: Instructions, qkv: &[f32], offsets: &[usize], n_head: usize, out: &mut [f32]) {
    let width = qkv.len() / 3 / offsets.last().copied().unwrap_or_default().max(1);
    let d = width / n_head;
    let mut tasks = Vec::new();
    let mut rest = out;
    for prompt in offsets.windows(2) {
        for start in (prompt[0]..prompt[1]).step_by(GROUP) {
            let end = (start + GROUP).min(prompt[1]);
            let (group, later) = rest.split_at_mut((end - start) * width);
            rest = later;
            tasks.push((prompt[0], start, end, group));
        }
    }
    // The longest first, so that no thread ends with one alone.
    tasks.sort_by_key(|(first, _, end, _)| std::cmp::Reverse(end - first));
    let scale = 1.0 / (d as f32).sqrt();
    tasks.into_par_iter().with_max_len(1).for_each_init(Vec::new, |scores, (first, start, end, out)| {
        let (queries, keys) = (end - start, end - first);
        let of_prompt = Matrix::new(&qkv[first * 3 * width..end * 3 * width], keys, 3 * width);
        scores.resize(queries * keys, 0.0);
        for head in 0..n_head {
            let columns = |part: usize| part * width + head * d..part * width + (head + 1) * d;
            let q = of_prompt.columns(columns(0)).rows(start - first..end - first);
            let (k, v) = (of_prompt.columns(columns(1)), of_prompt.columns(columns(2)));
            let product = MatrixMut::new(scores, queries, keys);
            multiply(Threads::One, scale, q, k.transposed(), Target::Replace, product);
            softmax_causal(instructions, scores, keys, start - first);
            let out = MatrixMut::new(out, queries, width).columns(head * d..(head + 1) * d);
            multiply(Threads::One, 1.0, Matrix::new(scores, queries, keys), v, Target::Replace, out);
        }
    });
}

/// Attention of the last position of every prompt, on all threads of the pool.
///
/// `q` is `[prompts, n_embd]`, `kv` is `[positions, 2·n_embd]` with the columns k | v, `out` is
/// `[prompts, n_embd]`.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn last(
    instructions: Instructions,
    q: &[f32],
    kv: &[f32],
    offsets: &[usize],
    n_head: usize,
    out: &mut [f32],
) {
    let width = q.len() / (offsets.len() - 1).max(1);
    if width == 0 {
        return;
    }
    q.par_chunks_exact(width).zip(out.par_chunks_exact_mut(width)).zip(offsets.par_windows(2)).for_each_init(
        Vec::new,
        |scores, ((q, out), prompt)| {
            scores.resize(prompt[1] - prompt[0], 0.0);
            attend(instructions, q, &kv[prompt[0] * 2 * width..prompt[1] * 2 * width], n_head, scores, out);
        },
    );
}

vectorized! {
    /// Attention of one query `q` `[n_embd]` to all of `kv` `[keys, 2·n_embd]`; `scores` has room
    /// for one number a key.
    pub fn attend(q: &[f32], kv: &[f32], n_head: usize, scores: &mut [f32], out: &mut [f32]) = attend_body
}

#[inline(always)]
fn attend_body<const FMA: bool>(q: &[f32], kv: &[f32], n_head: usize, scores: &mut [f32], out: &mut [f32]) {
    let (width, d) = (q.len(), q.len() / n_head);
    let scale = 1.0 / (d as f32).sqrt();
    for head in 0..n_head {
        let of_head = head * d..(head + 1) * d;
        let q = &q[of_head.clone()];
        for (score, kv) in scores.iter_mut().zip(kv.chunks_exact(2 * width)) {
            *score = scale * dot_body::<FMA>(q, &kv[of_head.clone()]);
        }
        softmax::<FMA>(scores);
        let out = &mut out[of_head.clone()];
        out.fill(0.0);
        for (score, kv) in scores.iter().zip(kv.chunks_exact(2 * width)) {
            let v = &kv[width..][of_head.clone()];
            for i in 0..d {
                out[i] = mul_add::<FMA>(*score, v[i], out[i]);
            }
        }
    }
}

vectorized! {
    /// Softmax of each row of `scores`, `width` numbers wide: row `i` over its first
    /// `before + i + 1` numbers; the rest become 0.
    pub fn softmax_causal(scores: &mut [f32], width: usize, before: usize) = softmax_causal_body
}

#[inline(always)]
fn softmax_causal_body<const FMA: bool>(scores: &mut [f32], width: usize, before: usize) {
    for (i, row) in scores.chunks_exact_mut(width).enumerate() {
        let (past, future) = row.split_at_mut(before + i + 1);
        softmax::<FMA>(past);
        future.fill(0.0);
    }
}

#[inline(always)]
fn softmax<const FMA: bool>(row: &mut [f32]) {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for chunk in &*chunks {
        for i in 0..LANES {
            largest[i] = larger(largest[i], chunk[i]);
        }
    }
    let largest = largest.iter().chain(&*rest).copied().fold(f32::NEG_INFINITY, larger);
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(chunk[i] - largest);
            sums[i] += chunk[i];
        }
    }
    let mut sum = super::vector::sum_lanes(sums);
    for score in rest {
        *score = exp::<FMA>(*score - largest);
        sum += *score;
    }
    let scale = 1.0 / sum;
    for score in row {
        *score *= scale;
    }
}
