//! Causal attention that keeps its probabilities, and its gradients.

use std::ops::Range;

use rayon::prelude::*;

use crate::gpt2::kernels::{
    attention::softmax_causal,
    dropout::Mask,
    gemm::{Matrix, MatrixMut, Target, Threads, multiply},
    vector::{Instructions, LANES, mul_add, sum_lanes, vectorized},
};

/// Queries of a group.
const GROUP: usize = 64;

/// Neighbouring queries of a prompt that are computed together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// Rows of `q` and of the output.
    queries: Range<usize>,
    /// Positions up to the last of the queries.
    keys: Range<usize>,
}

impl Group {
    /// Keys before the first query.
    fn before(&self) -> usize {
        self.keys.len() - self.queries.len()
    }

    fn size(&self) -> usize {
        self.keys.len() * self.queries.len()
    }
}

/// One prompt: its groups, and its masks of probabilities.
#[derive(Debug, Clone)]
struct Prompt {
    groups: Vec<Group>,
    queries: Range<usize>,
    positions: Range<usize>,
    mask: Option<Mask>,
}

/// Which queries attend to which keys.
#[derive(Debug, Clone)]
pub struct Pattern {
    prompts: Vec<Prompt>,
    n_head: usize,
    n_embd: usize,
}

impl Pattern {
    /// Every position, or of each prompt the `last` alone, attends to the positions up to itself.
    ///
    /// Prompt `i` has the positions `offsets[i]..offsets[i + 1]`, at least one, and drops
    /// probabilities by `masks[i]`.
    ///
    /// # Panics
    ///
    /// If there is not one mask a prompt.
    pub fn new(offsets: &[usize], last: bool, masks: &[Option<Mask>], n_head: usize, n_embd: usize) -> Self {
        assert_eq!(offsets.len(), masks.len() + 1, "one mask a prompt");
        let mut prompts = Vec::with_capacity(masks.len());
        for (i, (cut, mask)) in offsets.windows(2).zip(masks).enumerate() {
            let positions = cut[0]..cut[1];
            let groups: Vec<Group> = if last {
                vec![Group { queries: i..i + 1, keys: positions.clone() }]
            } else {
                let starts = positions.clone().step_by(GROUP);
                let until = |start: usize| (start + GROUP).min(positions.end);
                let group =
                    |start| Group { queries: start..until(start), keys: positions.start..until(start) };
                starts.map(group).collect()
            };
            let queries = if last { i..i + 1 } else { positions.clone() };
            prompts.push(Prompt { groups, queries, positions, mask: *mask });
        }
        Self { prompts, n_head, n_embd }
    }

    /// Numbers that the probabilities take.
    pub fn probabilities(&self) -> usize {
        self.groups().map(|(_, group)| self.n_head * group.size()).sum()
    }

    fn groups(&self) -> impl Iterator<Item = (&Prompt, &Group)> {
        self.prompts.iter().flat_map(|prompt| prompt.groups.iter().map(move |group| (prompt, group)))
    }

    fn head_width(&self) -> usize {
        self.n_embd / self.n_head
    }
}

/// Attention of `q` `[queries, n_embd]` to `kv` `[positions, 2·n_embd]` (columns k | v) into `out`
/// `[queries, n_embd]`, on all threads of the pool.
///
/// `probabilities` receives those before dropout, group after group, head after head.
///
/// # Panics
///
/// If the shapes do not fit.
pub fn forward(
    instructions: Instructions,
    pattern: &Pattern,
    q: &[f32],
    kv: &[f32],
    probabilities: &mut [f32],
    out: &mut [f32],
) {
    let (n_head, width, d) = (pattern.n_head, pattern.n_embd, pattern.head_width());
    let scale = 1.0 / (d as f32).sqrt();
    let (mut rest, mut rest_out) = (probabilities, out);
    let mut tasks = Vec::new();
    for (prompt, group) in pattern.groups() {
        let (probabilities, later) = rest.split_at_mut(n_head * group.size());
        let (out, later_out) = rest_out.split_at_mut(group.queries.len() * width);
        (rest, rest_out) = (later, later_out);
        tasks.push((prompt, group, probabilities, out));
    }
    tasks.into_par_iter().with_max_len(1).for_each_init(
        Vec::new,
        |kept, (prompt, group, probabilities, out)| {
            let (queries, keys) = (group.queries.len(), group.keys.len());
            let q = Matrix::new(&q[group.queries.start * width..group.queries.end * width], queries, width);
            let kv =
                Matrix::new(&kv[group.keys.start * 2 * width..group.keys.end * 2 * width], keys, 2 * width);
            for (head, probabilities) in probabilities.chunks_exact_mut(group.size()).enumerate() {
                let columns = head * d..(head + 1) * d;
                let (k, v) =
                    (kv.columns(columns.clone()), kv.columns(width + columns.start..width + columns.end));
                let product = MatrixMut::new(probabilities, queries, keys);
                multiply(
                    Threads::One,
                    scale,
                    q.columns(columns.clone()),
                    k.transposed(),
                    Target::Replace,
                    product,
                );
                softmax_causal(instructions, probabilities, keys, group.before());
                let weights = dropped(prompt, group, head, probabilities, kept);
                let out = MatrixMut::new(out, queries, width).columns(columns);
                multiply(Threads::One, 1.0, Matrix::new(weights, queries, keys), v, Target::Replace, out);
            }
        },
    );
}

/// Gradients of [`forward`] into `of_q` and `of_kv`, which are overwritten, on all threads of
/// the pool; `upstream` is the gradient of its output.
///
/// # Panics
///
/// If the shapes do not fit.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    instructions: Instructions,
    pattern: &Pattern,
    q: &[f32],
    kv: &[f32],
    probabilities: &[f32],
    upstream: &[f32],
    of_q: &mut [f32],
    of_kv: &mut [f32],
) {
    let (n_head, width, d) = (pattern.n_head, pattern.n_embd, pattern.head_width());
    // Head after head within a prompt, so that every task has numbers of its own.
    let (mut heads_q, mut heads_kv) = (vec![0.0; of_q.len()], vec![0.0; of_kv.len()]);
    let (mut rest_q, mut rest_kv, mut rest) =
        (heads_q.as_mut_slice(), heads_kv.as_mut_slice(), probabilities);
    let mut tasks = Vec::new();
    for prompt in &pattern.prompts {
        let size: usize = prompt.groups.iter().map(|group| n_head * group.size()).sum();
        let (probabilities, later) = rest.split_at(size);
        rest = later;
        for head in 0..n_head {
            let (of_q, later_q) = rest_q.split_at_mut(prompt.queries.len() * d);
            let (of_kv, later_kv) = rest_kv.split_at_mut(prompt.positions.len() * 2 * d);
            (rest_q, rest_kv) = (later_q, later_kv);
            tasks.push((prompt, head, probabilities, of_q, of_kv));
        }
    }
    tasks.into_par_iter().with_max_len(1).for_each_init(
        || (Vec::new(), Vec::new()),
        |(kept, scores), (prompt, head, probabilities, of_q, of_kv)| {
            let of = HeadOfPrompt { pattern, prompt, head, q, kv, upstream };
            of.backward(instructions, probabilities, of_q, of_kv, kept, scores);
        },
    );
    interleave(pattern, &heads_q, d, width, |prompt| prompt.queries.len(), of_q);
    interleave(pattern, &heads_kv, 2 * d, 2 * width, |prompt| prompt.positions.len(), of_kv);
}

struct HeadOfPrompt<'a> {
    pattern: &'a Pattern,
    prompt: &'a Prompt,
    head: usize,
    q: &'a [f32],
    kv: &'a [f32],
    upstream: &'a [f32],
}

impl HeadOfPrompt<'_> {
    /// `of_q` is `[queries, d]`, `of_kv` is `[positions, 2·d]`, both zero; the rest is scratch.
    fn backward(
        &self,
        instructions: Instructions,
        probabilities: &[f32],
        of_q: &mut [f32],
        of_kv: &mut [f32],
        kept: &mut Vec<f32>,
        scores: &mut Vec<f32>,
    ) {
        let (n_head, width, d) = (self.pattern.n_head, self.pattern.n_embd, self.pattern.head_width());
        let scale = 1.0 / (d as f32).sqrt();
        let columns = self.head * d..(self.head + 1) * d;
        let mut at = 0;
        for group in &self.prompt.groups {
            let (queries, keys, size) = (group.queries.len(), group.keys.len(), group.size());
            let probabilities = &probabilities[at + self.head * size..][..size];
            at += n_head * size;
            let rows = group.queries.start * width..group.queries.end * width;
            let q = Matrix::new(&self.q[rows.clone()], queries, width).columns(columns.clone());
            let upstream = Matrix::new(&self.upstream[rows], queries, width).columns(columns.clone());
            let kv = &self.kv[group.keys.start * 2 * width..group.keys.end * 2 * width];
            let kv = Matrix::new(kv, keys, 2 * width);
            let (k, v) =
                (kv.columns(columns.clone()), kv.columns(width + columns.start..width + columns.end));
            let of_kv = &mut of_kv[..keys * 2 * d];

            let weights = dropped(self.prompt, group, self.head, probabilities, kept);
            let of_v = MatrixMut::new(of_kv, keys, 2 * d).columns(d..2 * d);
            let weights = Matrix::new(weights, queries, keys);
            multiply(Threads::One, 1.0, weights.transposed(), upstream, Target::Add, of_v);

            scores.resize(size, 0.0);
            let product = MatrixMut::new(scores, queries, keys);
            multiply(Threads::One, 1.0, upstream, v.transposed(), Target::Replace, product);
            drop_probabilities(self.prompt, group, self.head, scores);
            softmax_backward(instructions, probabilities, keys, scores);

            let first = group.queries.start - self.prompt.queries.start;
            let of_q = &mut of_q[first * d..(first + queries) * d];
            let of_q = MatrixMut::new(of_q, queries, d);
            let scores = Matrix::new(scores, queries, keys);
            multiply(Threads::One, scale, scores, k, Target::Replace, of_q);
            let of_k = MatrixMut::new(of_kv, keys, 2 * d).columns(0..d);
            multiply(Threads::One, scale, scores.transposed(), q, Target::Add, of_k);
        }
    }
}

/// From head after head, `[head][row][part · d]`, to rows, `[row][part][head · d]`.
///
/// `piece` is the width of a row within a head, `width` its width in all: both hold the same
/// number of parts (1 for q, 2 for k and v).
fn interleave(
    pattern: &Pattern,
    heads: &[f32],
    piece: usize,
    width: usize,
    rows: impl Fn(&Prompt) -> usize,
    out: &mut [f32],
) {
    let d = pattern.head_width();
    let (mut rest, mut rest_out) = (heads, out);
    let mut tasks = Vec::new();
    for prompt in &pattern.prompts {
        let (heads, later) = rest.split_at(rows(prompt) * width);
        let (out, later_out) = rest_out.split_at_mut(rows(prompt) * width);
        (rest, rest_out) = (later, later_out);
        tasks.push((rows(prompt), heads, out));
    }
    tasks.into_par_iter().with_max_len(1).for_each(|(rows, heads, out)| {
        out.par_chunks_exact_mut(width).with_min_len(GROUP).enumerate().for_each(|(row, out)| {
            for (head, heads) in heads.chunks_exact(rows * piece).enumerate() {
                for (part, from) in heads[row * piece..(row + 1) * piece].chunks_exact(d).enumerate() {
                    out[part * pattern.n_embd + head * d..][..d].copy_from_slice(from);
                }
            }
        });
    });
}

/// The probabilities after dropout: themselves where nothing is dropped, else in `kept`.
fn dropped<'a>(
    prompt: &Prompt,
    group: &Group,
    head: usize,
    probabilities: &'a [f32],
    kept: &'a mut Vec<f32>,
) -> &'a [f32] {
    if prompt.mask.is_none() {
        return probabilities;
    }
    kept.clear();
    kept.extend_from_slice(probabilities);
    drop_probabilities(prompt, group, head, kept);
    kept
}

/// Multiplies what belongs to the probabilities of a group by the mask.
fn drop_probabilities(prompt: &Prompt, group: &Group, head: usize, values: &mut [f32]) {
    let Some(mask) = prompt.mask else { return };
    let length = prompt.positions.len();
    for (i, row) in values.chunks_exact_mut(group.keys.len()).enumerate() {
        let query = group.before() + i;
        mask.apply((head * length + query) * length, &mut row[..=query]);
    }
}

#[inline(always)]
fn softmax_backward_body<const FMA: bool>(probabilities: &[f32], width: usize, gradient: &mut [f32]) {
    for (p, g) in probabilities.chunks_exact(width).zip(gradient.chunks_exact_mut(width)) {
        let ((p_chunks, p_rest), (g_chunks, g_rest)) = (p.as_chunks::<LANES>(), g.as_chunks::<LANES>());
        let mut sums = [0.0; LANES];
        for (p, g) in p_chunks.iter().zip(g_chunks) {
            for i in 0..LANES {
                sums[i] = mul_add::<FMA>(p[i], g[i], sums[i]);
            }
        }
        let rest = p_rest.iter().zip(g_rest).fold(0.0, |sum, (p, g)| mul_add::<FMA>(*p, *g, sum));
        let sum = sum_lanes(sums) + rest;
        for (p, g) in p.iter().zip(g) {
            *g = p * (*g - sum);
        }
    }
}

vectorized! {
    /// Turns the gradient of `probabilities`, `width` a row, into that of the scores.
    pub fn softmax_backward(probabilities: &[f32], width: usize, gradient: &mut [f32]) = softmax_backward_body
}
