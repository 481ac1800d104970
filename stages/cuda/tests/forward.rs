//! The forward pass for GPUs, run with the kernels compiled for the processor, against the processor's.

mod machines;

use half::f16;
use machines::{
    Tested, assert_close,
    model::{CONFIG, LENGTHS, weights},
    noise, offsets, tests_of,
};
use pipe_cuda::inference;
use pipe_stages::{
    data::{HiddenFormat, HiddenType, States},
    gpt2::{Activation, BlockWeights, Encoder, Finisher, Forward, Precision, blocks_from, embed, final_norm},
};

tests_of! {
    states_after_any_number_of_blocks_are_those_of_the_processor,
    last_states_are_those_of_the_processor,
}

/// How far states may differ: where an f32 of one is rounded to another neighbour than that of the
/// other, the two go on apart by a step of the precision; and the products that attention and GELU
/// read, and the weights of attention, are rounded here alone.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::F16 => 1e-2,
        Precision::Bf16 => 8e-2,
    }
}

const CASES: [(Precision, Activation); 4] = [
    (Precision::F32, Activation::GeluNew),
    (Precision::F32, Activation::Gelu),
    (Precision::F16, Activation::GeluNew),
    (Precision::Bf16, Activation::GeluNew),
];

fn states_after_any_number_of_blocks_are_those_of_the_processor<M: Tested>() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let offsets = offsets(&LENGTHS);
    let tokens: Vec<u32> = (0..offsets[LENGTHS.len()] as u32).map(|i| i * 7 % 50).collect();
    for kernels in M::all() {
        for (blocks, (precision, activation)) in
            [0, 1, 3].into_iter().flat_map(|n| CASES.map(|case| (n, case)))
        {
            let mut wanted = embed(&weights, &tokens, &offsets);
            let mut forward = Forward::new(&CONFIG, activation).in_precision(precision);
            for block in 0..blocks {
                forward.block(&BlockWeights::of(&weights, block).rounded(precision), &mut wanted, &offsets);
            }
            for dtype in [HiddenType::F32, HiddenType::F16] {
                let format = HiddenFormat { blocks, n_embd: CONFIG.n_embd, activation, dtype };
                let mut encoder = inference::Encoder::new(&kernels, &weights, format, precision).unwrap();
                // A larger batch before leaves nothing in the buffers that matters.
                encoder
                    .start(&[tokens.clone(), vec![3; 70]].concat(), &[offsets.clone(), vec![200]].concat())
                    .unwrap();
                encoder.take().unwrap();
                encoder.start(&tokens, &offsets).unwrap();
                let what = format!("{blocks} blocks, {precision}, {activation}, stored as {dtype}");
                let encoded = encoder.take().unwrap();
                let states = numbers((*encoded.bytes).as_ref(), dtype);
                let rounding = if dtype == HiddenType::F16 { 5e-4 } else { 0.0 };
                assert_close::<M>(&states, &wanted, tolerance(precision) + rounding, &what);
                let largest = |cut: &[usize]| {
                    let own = &wanted[cut[0] * CONFIG.n_embd..cut[1] * CONFIG.n_embd];
                    own.iter().fold(0.0f32, |largest, state| largest.max(state.abs()))
                };
                let magnitudes: Vec<f32> = offsets.windows(2).map(largest).collect();
                assert_close::<M>(&encoded.magnitudes, &magnitudes, tolerance(precision), &what);
            }
        }
    }
}

/// The numbers of a file of states.
fn numbers(bytes: &[u8], dtype: HiddenType) -> Vec<f32> {
    match dtype {
        HiddenType::F32 => bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect(),
        HiddenType::F16 => {
            bytes.as_chunks().0.iter().map(|number| f16::from_le_bytes(*number).to_f32()).collect()
        }
    }
}

fn last_states_are_those_of_the_processor<M: Tested>() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let offsets = offsets(&LENGTHS);
    let hidden = noise(7, offsets[LENGTHS.len()] * CONFIG.n_embd, 1.0);
    for kernels in M::all() {
        for (first, (precision, activation)) in
            [0, 2, 3].into_iter().flat_map(|n| CASES.map(|case| (n, case)))
        {
            let (blocks, norm) = (blocks_from(&weights, None, first), final_norm(&weights, None));
            let rounded: Vec<_> = blocks.iter().map(|block| block.clone().rounded(precision)).collect();
            let mut forward = Forward::new(&CONFIG, activation).in_precision(precision);
            let wanted = forward.last_hidden(&rounded, &norm, &mut hidden.clone(), &offsets);
            let mut finisher =
                inference::Finisher::new(&kernels, &CONFIG, &blocks, &norm, activation, precision).unwrap();
            finisher.start(States::F32(hidden.clone()), &offsets).unwrap();
            let what = format!("blocks from {first}, {precision}, {activation}");
            assert_close::<M>(&finisher.take().unwrap(), &wanted, tolerance(precision), &what);
        }
    }
}
