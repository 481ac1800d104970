//! Attention and its gradients, compiled for the processor, against the Rust ones.

mod machines;

use machines::{
    Tested, assert_close, noise, offsets, tests_of,
    values::{FORMATS, best, down, dropped, masks, rounded, tolerance, up, up_in, with_bias, zeros},
};
use pipe_cuda::{
    launch::{Formats, Heads, Keys},
    prompts::{Dropped, Prompts},
    slice::bytes_of,
};
use pipe_stages::gpt2::{
    Precision,
    kernels::{attention, dropout::Site, gradient},
};

tests_of! {
    attention_of_every_position_is_that_of_rust,
    attention_of_last_positions_is_that_of_rust,
    gradients_of_attention_are_those_of_rust_with_and_without_dropout,
}

/// Lengths of prompts: one, few, full tiles, one more, and the longest of the published run.
const LENGTHS: &[&[usize]] = &[&[1], &[2, 1, 5], &[32, 64], &[33, 65, 3], &[256, 100]];
/// Heads and their width.
const HEADS: &[(usize, usize)] = &[(1, 4), (3, 5), (2, 16), (2, 37), (1, 64)];

/// All formats of attention.
const ATTENTION_FORMATS: [Formats; 5] = {
    const fn formats(products: Precision, stored: Precision) -> Formats {
        Formats { products, stored }
    }
    [
        formats(Precision::F32, Precision::F32),
        formats(Precision::F16, Precision::F16),
        formats(Precision::Bf16, Precision::Bf16),
        formats(Precision::F16, Precision::F32),
        formats(Precision::Bf16, Precision::F32),
    ]
};

fn attention_of_every_position_is_that_of_rust<M: Tested>() {
    for kernels in M::all() {
        for (lengths, (n_head, d)) in
            LENGTHS.iter().flat_map(|lengths| HEADS.iter().map(move |h| (*lengths, *h)))
        {
            let (offsets, width) = (offsets(lengths), n_head * d);
            let positions = offsets[lengths.len()];
            let (qkv, bias) = (noise(1, positions * 3 * width, 2.0), noise(2, 3 * width, 1.0));
            let prompts = Prompts::new(&kernels, &offsets).unwrap();
            for formats in ATTENTION_FORMATS {
                let Formats { products, stored } = formats;
                let sums = rounded(products, &with_bias(&rounded(stored, &qkv), &bias));
                let mut wanted = vec![0.0; positions * width];
                attention::causal(best(), &sums, &offsets, n_head, &mut wanted);
                let (qkv, bias) = (up_in(&kernels, stored, &qkv), up(&kernels, &bias));
                let (rows, bias) = (kernels.slice(&qkv), kernels.slice(&bias));
                let mut out = zeros(&kernels, positions * width);
                let biases = Some([bias, bias.skip(4 * width), bias.skip(8 * width)]);
                let (k, v) = (rows.skip(bytes_of(stored) * width), rows.skip(bytes_of(stored) * 2 * width));
                let keys = Keys { k, v, stride: 3 * width, biases };
                let heads = Heads { count: n_head, width: d };
                let (to, q) = (kernels.slice_mut(&mut out), (rows, 3 * width));
                kernels.attention(formats, &to, None, q, keys, Dropped::NOTHING, &prompts, heads).unwrap();
                let what = format!("{lengths:?} {n_head} heads of {d} in {formats:?}");
                let got = down(&kernels, &out, stored, positions * width);
                assert_close::<M>(&got, &wanted, tolerance(products).max(4e-6), &what);
            }
        }
    }
}

fn attention_of_last_positions_is_that_of_rust<M: Tested>() {
    for kernels in M::all() {
        for (lengths, (n_head, d)) in
            LENGTHS.iter().flat_map(|lengths| HEADS.iter().map(move |h| (*lengths, *h)))
        {
            let (offsets, width, count) = (offsets(lengths), n_head * d, lengths.len());
            let positions = offsets[count];
            let (q, kv) = (noise(1, count * width, 2.0), noise(2, positions * 2 * width, 2.0));
            let bias = noise(3, 3 * width, 1.0);
            let prompts = Prompts::new(&kernels, &offsets).unwrap();
            for formats in ATTENTION_FORMATS {
                let Formats { products, stored } = formats;
                let sums = |x: &[f32], bias| rounded(products, &with_bias(&rounded(stored, x), bias));
                let mut wanted = vec![0.0; count * width];
                let (q_sum, kv_sum) = (sums(&q, &bias[..width]), sums(&kv, &bias[width..]));
                attention::last(best(), &q_sum, &kv_sum, &offsets, n_head, &mut wanted);
                let (q, kv) = (up_in(&kernels, stored, &q), up_in(&kernels, stored, &kv));
                let bias = up(&kernels, &bias);
                let (rows, bias) = (kernels.slice(&kv), kernels.slice(&bias));
                let mut out = zeros(&kernels, count * width);
                let biases = Some([bias, bias.skip(4 * width), bias.skip(8 * width)]);
                let v = rows.skip(bytes_of(stored) * width);
                let keys = Keys { k: rows, v, stride: 2 * width, biases };
                let heads = Heads { count: n_head, width: d };
                let (to, q) = (kernels.slice_mut(&mut out), kernels.slice(&q));
                kernels.attention_last(formats, &to, q, keys, Dropped::NOTHING, &prompts, heads).unwrap();
                let what = format!("{lengths:?} {n_head} heads of {d} in {formats:?}");
                let got = down(&kernels, &out, stored, count * width);
                assert_close::<M>(&got, &wanted, tolerance(products).max(4e-6), &what);
            }
        }
    }
}

/// Factors are rounded as on the device; of weights and of the gradients of scores, which are rounded
/// there, too, half a step remains.
fn gradients_of_attention_are_those_of_rust_with_and_without_dropout<M: Tested>() {
    for kernels in M::all() {
        let shapes = LENGTHS.iter().zip(HEADS).flat_map(|(lengths, heads)| {
            [0.0, 0.25].into_iter().flat_map(move |share| {
                [false, true]
                    .into_iter()
                    .flat_map(move |last| FORMATS.map(|format| (*lengths, *heads, share, last, format)))
            })
        });
        for (lengths, (n_head, d), share, last, format) in shapes {
            let (offsets, width, count) = (offsets(lengths), n_head * d, lengths.len());
            let positions = offsets[count];
            let queries = if last { count } else { positions };
            let (q, kv) = (noise(1, queries * width, 1.5), noise(2, positions * 2 * width, 1.5));
            let upstream = noise(3, queries * width, 1.0);
            let (masks, keys) = masks(&kernels, count, Site::Attention, share);
            let pattern = gradient::attention::Pattern::new(&offsets, last, &masks, n_head, width);
            let mut probabilities = vec![0.0; pattern.probabilities()];
            let mut wanted = vec![0.0; queries * width];
            let (q_rounded, kv_rounded) = (rounded(format, &q), rounded(format, &kv));
            gradient::attention::forward(
                best(),
                &pattern,
                &q_rounded,
                &kv_rounded,
                &mut probabilities,
                &mut wanted,
            );
            let (mut wanted_q, mut wanted_kv) = (vec![0.0; q.len()], vec![0.0; kv.len()]);
            let backward = format.backward();
            gradient::attention::backward(
                best(),
                &pattern,
                &rounded(backward, &q),
                &rounded(backward, &kv),
                &probabilities,
                &rounded(backward, &upstream),
                &mut wanted_q,
                &mut wanted_kv,
            );

            let prompts = Prompts::new(&kernels, &offsets).unwrap();
            let (q, kv, upstream) = (up(&kernels, &q), up(&kernels, &kv), up(&kernels, &upstream));
            let rows = kernels.slice(&kv);
            let seen = Keys { k: rows, v: rows.skip(4 * width), stride: 2 * width, biases: None };
            let (dropped, heads) = (dropped(&kernels, &masks, &keys), Heads { count: n_head, width: d });
            let formats = Formats::wide(format);
            let mut out = zeros(&kernels, queries * width);
            let mut denominators = zeros(&kernels, positions * n_head);
            let (mut of_q, mut of_k) =
                (zeros(&kernels, queries * width), zeros(&kernels, positions * 2 * width));
            // Values beside keys: two views of one buffer, as the training has them.
            let mut of_v = zeros(&kernels, positions * 2 * width);
            let (q, upstream) = (kernels.slice(&q), kernels.slice(&upstream));
            {
                let (to, to_q) = (kernels.slice_mut(&mut out), kernels.slice_mut(&mut of_q));
                let into = [&kernels.slice_mut(&mut of_k), &kernels.slice_mut(&mut of_v).skip(4 * width)];
                if last {
                    kernels.attention_last(formats, &to, q, seen, dropped, &prompts, heads).unwrap();
                    kernels
                        .attention_last_gradient(
                            format, &to_q, into, q, seen, upstream, dropped, &prompts, heads,
                        )
                        .unwrap();
                } else {
                    let kept = kernels.slice_mut(&mut denominators);
                    let rows = (q, width);
                    kernels
                        .attention(formats, &to, Some(&kept), rows, seen, dropped, &prompts, heads)
                        .unwrap();
                    let mut dots = zeros(&kernels, positions * n_head);
                    let dots = kernels.slice_mut(&mut dots);
                    let given = (to.read(), kept.read());
                    kernels
                        .attention_gradient(
                            format, &to_q, into, q, seen, given, &dots, upstream, dropped, &prompts, heads,
                        )
                        .unwrap();
                }
            }
            let what = format!("{lengths:?} {n_head} heads of {d}, dropped {share}, last {last}, {format}");
            let get = |numbers, count| down(&kernels, numbers, Precision::F32, count);
            let (of_result, of_gradients) = (tolerance(format).max(5e-6), tolerance(backward).max(1e-5));
            assert_close::<M>(&get(&out, queries * width), &wanted, of_result, &what);
            assert_close::<M>(&get(&of_q, queries * width), &wanted_q, of_gradients, &what);
            let (of_k, of_v) = (get(&of_k, positions * 2 * width), get(&of_v, positions * 2 * width));
            let of_kv: Vec<f32> = of_k.iter().zip(&of_v).map(|(k, v)| k + v).collect();
            assert_close::<M>(&of_kv, &wanted_kv, of_gradients, &what);
        }
    }
}
