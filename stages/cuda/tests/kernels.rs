//! Every kernel but those of attention, compiled for the processor, against the Rust one.

mod machines;

use half::f16;
use machines::{
    Tested, assert_close, noise, offsets, tests_of,
    values::{FORMATS, best, down, dropped, masks, tolerance, up, up_in, zeros},
};
use pipe_cuda::{
    launch::{AdamWArguments, Kernels, NormSlices, Tensor},
    machine::Numbers,
    prompts::Prompts,
    slice::Factor,
    weights::in_format,
};
use pipe_stages::{
    data::States,
    gpt2::{
        Activation, Precision,
        kernels::{dropout::Site, gelu, gemm, gradient, layer_norm},
        training::{AdamW, Moments},
    },
};

tests_of! {
    conversions_round_to_nearest_even_as_rust_does_and_widen_exactly,
    layer_norm_of_rows_of_any_width_is_that_of_rust_with_and_without_a_row_added,
    gradients_of_layer_norm_are_those_of_rust,
    gelu_and_its_slope_are_those_of_rust_in_both_forms,
    rows_are_dropped_added_gathered_and_scattered_as_in_rust,
    states_of_prompts_are_gathered_from_where_each_lies,
    the_largest_magnitude_of_a_prompt_is_found_and_is_no_number_where_one_is_none,
    columns_are_summed_over_all_rows_and_added,
    embeddings_are_those_of_token_and_place,
    the_head_its_loss_and_its_gradients_meet_the_formula,
    an_update_clips_by_the_norm_of_all_tensors_and_is_that_of_rust,
    products_of_transposed_and_partial_matrices_are_those_of_rust,
    products_are_rounded_to_the_format_of_their_factors_where_that_is_asked_for,
}

/// Rows, their width, and numbers before the first one of a vector: with numbers taken one by one and in
/// fours, several blocks a row, and more rows than blocks.
const SHAPES: [(usize, usize, usize); 5] =
    [(13, 37, 0), (13, 40, 0), (13, 40, 1), (2, 1032, 0), (4100, 4, 0)];

/// As [`SHAPES`]: rows that are read again and again, or held in registers up to the widest one.
const NORM_SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 0), (3, 5, 0), (9, 37, 0), (17, 64, 0), (5, 768, 0), (5, 768, 1), (2, 1024, 0), (2, 1028, 0)];

/// `values` behind `first` others.
fn behind(first: usize, values: &[f32]) -> Vec<f32> {
    [&vec![f32::NAN; first], values].concat()
}

fn conversions_round_to_nearest_even_as_rust_does_and_widen_exactly<M: Tested>() {
    let mut values = noise(1, 500, 3.0);
    values.extend(noise(2, 300, 7e-5));
    values.extend(noise(3, 200, 6e-8));
    values.extend([0.0, -0.0, 65504.0, 65519.9, 65520.0, -1e30, 1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0]);
    for kernels in M::all() {
        let x = up(&kernels, &values);
        for (format, first) in [Precision::F16, Precision::Bf16].into_iter().flat_map(|f| [(f, 0), (f, 1)]) {
            let (mut out, count) = (zeros(&kernels, values.len()), values.len() - first);
            let from = kernels.slice(&x).skip(4 * first);
            kernels.convert(format, &kernels.slice_mut(&mut out), from, count).unwrap();
            let wanted: Vec<f32> = values[first..].iter().map(|value| format.round(*value)).collect();
            assert_eq!(down(&kernels, &out, format, count), wanted, "{format} from {first}");
        }
        let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
        let wanted: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        for states in [States::F16(halves), States::F32(wanted.clone())] {
            let mut out = zeros(&kernels, values.len());
            kernels.write_states(&states, kernels.slice_mut(&mut out)).unwrap();
            assert_eq!(down(&kernels, &out, Precision::F32, values.len()), wanted, "states");
        }
        let halves = up_in(&kernels, Precision::F16, &values);
        let mut out = zeros(&kernels, values.len());
        let to = kernels.slice_mut(&mut out);
        kernels.f16_to_bf16(&to, kernels.slice(&halves), values.len()).unwrap();
        let wanted: Vec<f32> =
            values.iter().map(|value| Precision::Bf16.round(Precision::F16.round(*value))).collect();
        assert_eq!(down(&kernels, &out, Precision::Bf16, values.len()), wanted);
    }
}

fn layer_norm_of_rows_of_any_width_is_that_of_rust_with_and_without_a_row_added<M: Tested>() {
    for kernels in M::all() {
        for (rows, width, first) in NORM_SHAPES {
            let (x, added) = (noise(1, rows * width, 4.0), noise(2, width, 1.0));
            let (weight, bias) = (noise(3, width, 1.0), noise(4, width, 1.0));
            let sums: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + added[i % width]).collect();
            let on_device = [&behind(first, &x), &added, &weight, &bias].map(|values| up(&kernels, values));
            let [from, row, weight_of, bias_of] = on_device.each_ref().map(|numbers| kernels.slice(numbers));
            let from = from.skip(4 * first);
            let norm = NormSlices { weight: weight_of, bias: bias_of };
            for (format, is_added) in FORMATS.into_iter().flat_map(|format| [(format, false), (format, true)])
            {
                let mut wanted = vec![0.0; x.len()];
                let summed = if is_added { &sums } else { &x };
                layer_norm::layer_norm(best(), summed, &weight, &bias, &mut wanted);
                let mut out = zeros(&kernels, rows * width);
                let (to, row) = (kernels.slice_mut(&mut out), is_added.then_some(row));
                let mut wide = zeros(&kernels, rows * width);
                let to_wide = kernels.slice_mut(&mut wide);
                kernels.layer_norm(format, &to, Some(&to_wide), from, row, norm, rows, width).unwrap();
                let what = format!("{format} {rows} x {width} from {first}, added {is_added}");
                let got = down(&kernels, &out, format, rows * width);
                assert_close::<M>(&got, &wanted, tolerance(format).max(4e-6), &what);
                let got = down(&kernels, &wide, Precision::F32, rows * width);
                assert_close::<M>(&got, &wanted, 4e-6, &format!("wide, {what}"));
            }
        }
    }
}

fn gradients_of_layer_norm_are_those_of_rust<M: Tested>() {
    for kernels in M::all() {
        for (rows, width, first) in [(1, 3, 0), (300, 64, 0), (520, 33, 0)].into_iter().chain(NORM_SHAPES) {
            let (x, weight) = (noise(1, rows * width, 2.0), noise(2, width, 1.0));
            let (upstream, before) = (noise(3, rows * width, 1.0), noise(4, rows * width, 1.0));
            let (mut of_input, mut of_weight, mut of_bias) =
                (before.clone(), vec![1.0; width], vec![2.0; width]);
            let into = gradient::layer_norm::Gradients {
                input: Some(&mut of_input),
                parameters: Some((&mut of_weight, &mut of_bias)),
            };
            gradient::layer_norm::layer_norm(best(), &x, &weight, &upstream, into);
            let (x, weight, upstream) =
                (up(&kernels, &behind(first, &x)), up(&kernels, &weight), up(&kernels, &upstream));
            let mut input = up(&kernels, &before);
            let mut parameters = up(&kernels, &[vec![1.0; width], vec![2.0; width]].concat());
            let to = kernels.slice_mut(&mut input);
            let (from, above) = (kernels.slice(&x).skip(4 * first), kernels.slice(&upstream));
            let weight = kernels.slice(&weight);
            let stats = kernels.layer_norm_gradient(Some(&to), from, weight, above, rows, width).unwrap();
            let sums = kernels.norm_sums(kernels.slice(&stats), from, above, rows, width).unwrap();
            for (bias, skip) in [(false, 0), (true, 4 * width)] {
                let to = kernels.slice_mut(&mut parameters).skip(skip);
                kernels.add_norm_sums(&to, kernels.slice(&sums), bias, rows, width).unwrap();
            }
            let what = format!("{rows} x {width} from {first}");
            assert_close::<M>(&down(&kernels, &input, Precision::F32, rows * width), &of_input, 1e-5, &what);
            let wanted = [of_weight, of_bias].concat();
            assert_close::<M>(&down(&kernels, &parameters, Precision::F32, 2 * width), &wanted, 1e-5, &what);
        }
    }
}

fn gelu_and_its_slope_are_those_of_rust_in_both_forms<M: Tested>() {
    for kernels in M::all() {
        for (rows, width, first) in SHAPES {
            let (x, bias) = (noise(1, rows * width, 6.0), noise(2, width, 1.0));
            let sums: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + bias[i % width]).collect();
            let bias = up(&kernels, &behind(first, &bias));
            let bias = kernels.slice(&bias).skip(4 * first);
            for activation in [Activation::GeluNew, Activation::Gelu] {
                let what = format!("{activation} of {rows} x {width} from {first}");
                for format in FORMATS {
                    let mut wanted: Vec<f32> =
                        x.iter().zip(&sums).map(|(x, sum)| format.round(*x) + (sum - x)).collect();
                    gelu::activate(best(), activation, &mut wanted);
                    let mut in_place = kernels.upload(&in_format(&x, format)).unwrap();
                    let to = kernels.slice_mut(&mut in_place);
                    kernels.gelu(format, activation, &to, to.read(), bias, rows, width).unwrap();
                    let got = down(&kernels, &in_place, format, rows * width);
                    assert_close::<M>(&got, &wanted, tolerance(format), &format!("{what} in {format}"));
                }
                for format in FORMATS {
                    let upstream = noise(3, rows * width, 1.0);
                    let of_upstream = format.backward();
                    let mut wanted: Vec<f32> = upstream.iter().map(|u| of_upstream.round(*u)).collect();
                    let sums: Vec<f32> =
                        x.iter().zip(&sums).map(|(x, sum)| format.round(*x) + (sum - x)).collect();
                    gradient::gelu::multiply_derivative(best(), activation, &sums, &mut wanted);
                    let x = kernels.upload(&in_format(&x, format)).unwrap();
                    let mut gradient = kernels.upload(&in_format(&upstream, of_upstream)).unwrap();
                    let (to, from) = (kernels.slice_mut(&mut gradient), kernels.slice(&x));
                    kernels.gelu_gradient(format, activation, &to, from, bias, rows, width).unwrap();
                    let got = down(&kernels, &gradient, of_upstream, rows * width);
                    let what = format!("slope in {format}, {what}");
                    assert_close::<M>(&got, &wanted, tolerance(of_upstream), &what);
                }
            }
        }
    }
}

fn rows_are_dropped_added_gathered_and_scattered_as_in_rust<M: Tested>() {
    for kernels in M::all() {
        for (width, first) in [(10, 0), (12, 0), (12, 1)] {
            rows_of::<M>(&kernels, width, first);
        }
    }
}

/// Matrices `width` wide that begin behind `first` numbers of their buffers.
fn rows_of<M: Tested>(kernels: &Kernels<M>, width: usize, first: usize) {
    let lengths = [3usize, 1, 6];
    let offsets = offsets(&lengths);
    let positions = offsets[3];
    let prompts = Prompts::new(kernels, &offsets).unwrap();
    let (masks, keys) = masks(kernels, 3, Site::MlpBranch, 0.4);
    let what = |kernel: &str| format!("{kernel} of rows {width} wide from {first}");
    let get = |numbers: &Numbers<M>, count: usize| -> Vec<f32> {
        down(kernels, numbers, Precision::F32, first + count)[first..].to_vec()
    };
    for last in [false, true] {
        let rows = prompts.rows(last);
        let (branch, residual) = (noise(1, rows * width, 1.0), noise(2, rows * width, 1.0));
        let bias = noise(3, width, 1.0);
        let mut kept: Vec<f32> = branch.iter().enumerate().map(|(i, x)| x + bias[i % width]).collect();
        let mut at = 0;
        for (prompt, length) in lengths.iter().enumerate() {
            let (start, count) = if last { (length - 1, 1) } else { (0, *length) };
            masks[prompt].unwrap().apply(start * width, &mut kept[at..at + count * width]);
            at += count * width;
        }
        let wanted: Vec<f32> = kept.iter().zip(&residual).map(|(a, b)| a + b).collect();
        let (mut x, residual) = (up(kernels, &behind(first, &branch)), up(kernels, &residual));
        let (bias, dropped) = (up(kernels, &bias), dropped(kernels, &masks, &keys));
        let (residual, bias) = (kernels.slice(&residual), kernels.slice(&bias));
        let to = kernels.slice_mut(&mut x).skip(4 * first);
        kernels.add_branch(&to, residual, bias, dropped, &prompts, last, width).unwrap();
        assert_close::<M>(&get(&x, rows * width), &wanted, 1e-6, &what("branch"));
        let mut y = up(kernels, &behind(first, &branch));
        kernels.add_bias(&kernels.slice_mut(&mut y).skip(4 * first), bias, rows, width).unwrap();
        let mut out = zeros(kernels, first + rows * width);
        let (to, from) = (kernels.slice_mut(&mut out).skip(4 * first), kernels.slice(&y).skip(4 * first));
        kernels.drop_rows(Precision::F32, &to, from, dropped, &prompts, last, width).unwrap();
        assert_close::<M>(&get(&out, rows * width), &kept, 1e-6, &what("drop"));
        for format in FORMATS {
            let mut out = zeros(kernels, rows * width);
            let to = kernels.slice_mut(&mut out);
            kernels.drop_rows(format, &to, from, dropped, &prompts, last, width).unwrap();
            let got = down(kernels, &out, format, rows * width);
            assert_close::<M>(&got, &kept, tolerance(format), &what("drop"));
        }
        let mut sum = up(kernels, &behind(first, &noise(2, rows * width, 1.0)));
        let to = kernels.slice_mut(&mut sum).skip(4 * first);
        kernels.add_dropped(&to, from, dropped, &prompts, last, width).unwrap();
        assert_close::<M>(&get(&sum, rows * width), &wanted, 1e-6, &what("add dropped"));
    }
    let x = noise(4, positions * width, 1.0);
    let on_device = up(kernels, &x);
    let mut last = zeros(kernels, first + 3 * width);
    let to = kernels.slice_mut(&mut last).skip(4 * first);
    kernels.gather_last(&to, kernels.slice(&on_device), &prompts, width).unwrap();
    let rows: Vec<f32> =
        offsets[1..].iter().flat_map(|end| x[(end - 1) * width..end * width].to_vec()).collect();
    assert_eq!(get(&last, 3 * width), rows, "{}", what("gather"));
    let (mut to, from) = (zeros(kernels, positions * width), kernels.slice(&last).skip(4 * first));
    kernels.scatter_last(&kernels.slice_mut(&mut to), from, &prompts, width).unwrap();
    kernels.scatter_last(&kernels.slice_mut(&mut to), from, &prompts, width).unwrap();
    for (i, value) in down(kernels, &to, Precision::F32, positions * width).iter().enumerate() {
        let is_last = offsets[1..].contains(&(i / width + 1));
        assert!((value - if is_last { 2.0 * x[i] } else { 0.0 }).abs() < 1e-6, "{}", what("scatter"));
    }
}

fn states_of_prompts_are_gathered_from_where_each_lies<M: Tested>() {
    const LENGTHS: [usize; 3] = [3, 1, 5];
    for kernels in M::all() {
        for (format, width) in [Precision::F32, Precision::F16].into_iter().flat_map(|f| [(f, 37), (f, 768)])
        {
            let offsets = offsets(&LENGTHS);
            let values = noise(1, 9 * width, 3.0);
            let wanted: Vec<f32> = values.iter().map(|value| format.round(*value)).collect();
            // The last two prompts lie together, the other way round.
            let (first, rest) = values.split_at(3 * width);
            let (second, third) = rest.split_at(width);
            let first = up_in(&kernels, format, first);
            let others = up_in(&kernels, format, &[third, second].concat());
            let bytes = 5 * width * if format == Precision::F32 { 4 } else { 2 };
            let from = [kernels.slice(&first), kernels.slice(&others).skip(bytes), kernels.slice(&others)];
            let mut out = zeros(&kernels, 9 * width);
            let prompts = Prompts::new(&kernels, &offsets).unwrap();
            let to = kernels.slice_mut(&mut out);
            kernels.gather_states(&to, &from, format, &prompts, &offsets, width).unwrap();
            assert_eq!(down(&kernels, &out, Precision::F32, 9 * width), wanted, "{format}, {width} wide");
        }
    }
}

fn the_largest_magnitude_of_a_prompt_is_found_and_is_no_number_where_one_is_none<M: Tested>() {
    const WIDTH: usize = 300;
    for kernels in M::all() {
        let mut values = noise(1, 12 * WIDTH, 3.0);
        let offsets = offsets(&[1, 5, 2, 3, 1]);
        values[0] = -7.0;
        values[6 * WIDTH - 1] = 8.0;
        (values[6 * WIDTH], values[7 * WIDTH]) = (f32::INFINITY, -f32::NAN);
        values[9 * WIDTH] = f32::NEG_INFINITY;
        values[11 * WIDTH..].fill(0.0);
        let x = up(&kernels, &values);
        let mut out = zeros(&kernels, 5);
        let prompts = Prompts::new(&kernels, &offsets).unwrap();
        let to = kernels.slice_mut(&mut out);
        kernels.largest_magnitudes(&to, kernels.slice(&x), &prompts, WIDTH).unwrap();
        let mut found = down(&kernels, &out, Precision::F32, 5);
        assert!(found.remove(2).is_nan(), "{found:?}");
        assert_eq!(found, vec![7.0, 8.0, f32::INFINITY, 0.0]);
    }
}

fn columns_are_summed_over_all_rows_and_added<M: Tested>() {
    for kernels in M::all() {
        let shapes = [(1, 1, 1), (5, 40, 40), (700, 37, 50)];
        for (format, (rows, width, stride)) in FORMATS.into_iter().flat_map(|f| shapes.map(|s| (f, s))) {
            let x = noise(1, rows * stride, 1.0);
            let on_device = kernels.upload(&in_format(&x, format)).unwrap();
            let mut sums = up(&kernels, &vec![3.0; width]);
            let to = kernels.slice_mut(&mut sums);
            let from = Factor::new(kernels.slice(&on_device), format, rows, stride).columns(0, width);
            kernels.add_column_sums(&to, from).unwrap();
            let column = |c| (0..rows).map(|r| f64::from(format.round(x[r * stride + c]))).sum::<f64>();
            let wanted: Vec<f32> = (0..width).map(|c| (3.0 + column(c)) as f32).collect();
            assert_close::<M>(&down(&kernels, &sums, Precision::F32, width), &wanted, 1e-5, "sums");
        }
    }
}

fn embeddings_are_those_of_token_and_place<M: Tested>() {
    let (lengths, tokens) = ([2usize, 3], [8u32, 0, 3, 3, 5]);
    for (kernels, width) in M::all().into_iter().flat_map(|kernels| [(kernels.clone(), 7), (kernels, 8)]) {
        let (of_token, of_position) = (noise(1, 9 * width, 1.0), noise(2, 4 * width, 1.0));
        let prompts = Prompts::new(&kernels, &offsets(&lengths)).unwrap();
        let (table, places) = (up(&kernels, &of_token), up(&kernels, &of_position));
        let ids: Vec<u8> = tokens.iter().flat_map(|token| token.to_ne_bytes()).collect();
        let (ids, mut out) = (kernels.upload(&ids).unwrap(), zeros(&kernels, 5 * width));
        let to = kernels.slice_mut(&mut out);
        let (table, places) = ((kernels.slice(&table), 9), (kernels.slice(&places), 4));
        kernels.embed(&to, table, places, kernels.slice(&ids), &prompts, width).unwrap();
        let out = down(&kernels, &out, Precision::F32, 5 * width);
        for (row, place) in [0, 1, 0, 1, 2].into_iter().enumerate() {
            for c in 0..width {
                let wanted = of_token[tokens[row] as usize * width + c] + of_position[place * width + c];
                assert_eq!(out[row * width + c].to_bits(), wanted.to_bits());
            }
        }
    }
}

fn the_head_its_loss_and_its_gradients_meet_the_formula<M: Tested>() {
    let (prompts, width) = (5, 37);
    let (last, weight, bias) = (noise(1, prompts * width, 1.0), noise(2, width, 1.0), [0.3f32]);
    let (labels, share) = ([1.0f32, 0.0, 0.0, 1.0, 1.0], 0.125f32);
    let logits: Vec<f32> = last
        .chunks_exact(width)
        .map(|row| row.iter().zip(&weight).map(|(x, w)| x * w).sum::<f32>() + bias[0])
        .collect();
    let slope: Vec<f32> =
        logits.iter().zip(&labels).map(|(z, y)| share * (1.0 / (1.0 + (-z).exp()) - y)).collect();
    let loss: f64 = logits
        .iter()
        .zip(&labels)
        .map(|(z, y)| (1.0 + (if *y > 0.5 { -f64::from(*z) } else { f64::from(*z) }).exp()).ln())
        .sum();
    for kernels in M::all() {
        let (x, w, b) = (up(&kernels, &last), up(&kernels, &weight), up(&kernels, &bias));
        let (x, w, b) = (kernels.slice(&x), kernels.slice(&w), kernels.slice(&b));
        let mut z = zeros(&kernels, prompts);
        kernels.head_logits(&kernels.slice_mut(&mut z), x, w, b, prompts, width).unwrap();
        assert_close::<M>(&down(&kernels, &z, Precision::F32, prompts), &logits, 1e-5, "logits");
        let (mut of_z, y) = (zeros(&kernels, prompts), up(&kernels, &labels));
        let mut sum = kernels.upload(&10f64.to_ne_bytes()).unwrap();
        let (to, total) = (kernels.slice_mut(&mut of_z), kernels.slice_mut(&mut sum));
        let (from, y) = (kernels.slice(&z), kernels.slice(&y));
        kernels.cross_entropy(&to, &total, from, y, share, prompts).unwrap();
        assert_close::<M>(&down(&kernels, &of_z, Precision::F32, prompts), &slope, 1e-6, "slope");
        let mut bytes = [0; 8];
        kernels.read(kernels.slice(&sum), &mut bytes).unwrap();
        assert!((f64::from_ne_bytes(bytes) - 10.0 - loss).abs() < 1e-5);
        let mut of_x = zeros(&kernels, prompts * width);
        let (mut of_w, mut of_b) = (up(&kernels, &vec![1.0; width]), up(&kernels, &[1.0]));
        {
            let (of_x, of_w) = (kernels.slice_mut(&mut of_x), kernels.slice_mut(&mut of_w));
            let (of_b, of_z) = (kernels.slice_mut(&mut of_b), kernels.slice(&of_z));
            kernels.head_gradient(&of_x, &of_w, &of_b, of_z, x, w, prompts, width).unwrap();
        }
        let wanted: Vec<f32> = slope.iter().flat_map(|g| weight.iter().map(move |w| g * w)).collect();
        assert_close::<M>(&down(&kernels, &of_x, Precision::F32, prompts * width), &wanted, 1e-6, "of last");
        let wanted: Vec<f32> = (0..width)
            .map(|c| 1.0 + (0..prompts).map(|i| slope[i] * last[i * width + c]).sum::<f32>())
            .collect();
        assert_close::<M>(&down(&kernels, &of_w, Precision::F32, width), &wanted, 1e-6, "of weight");
        let of_bias = down(&kernels, &of_b, Precision::F32, 1)[0];
        assert!((of_bias - 1.0 - slope.iter().sum::<f32>()).abs() < 1e-6);
    }
}

fn an_update_clips_by_the_norm_of_all_tensors_and_is_that_of_rust<M: Tested>() {
    let adamw = AdamW { betas: [0.9, 0.95], epsilon: 1e-8, weight_decay: 0.1 };
    // Several blocks and a rest, one number, exactly two blocks; with decay and without.
    let sizes = [(5002, true), (1, false), (8192, true), (37, false)];
    let gradients: Vec<_> = sizes.iter().enumerate().map(|(i, (count, _))| noise(i, *count, 1.0)).collect();
    let square: f64 = gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum();
    for kernels in M::all() {
        for clip in [0.0, 0.5, 1e9] {
            let scale = if clip > 0.0 { (clip / square.sqrt()).min(1.0) as f32 } else { 1.0 };
            let (mut on_device, mut wanted) = (Vec::new(), Vec::new());
            for (i, ((count, decays), gradient)) in sizes.into_iter().zip(&gradients).enumerate() {
                let (mut values, first) = (noise(10 + i, count, 1.0), noise(20 + i, count, 0.1));
                let second = noise(30 + i, count, 0.1).iter().map(|v| v * v).collect();
                let mut moments = Moments { first, second };
                let given = [&values, &moments.first, &moments.second, gradient];
                on_device.push(given.map(|numbers| up(&kernels, numbers)));
                adamw.update(4, 0.01, scale, decays, &mut values, gradient, &mut moments);
                wanted.push([values, moments.first, moments.second]);
            }
            for loss in [f64::NAN, 0.5] {
                let tensors = on_device.iter_mut().zip(sizes).map(|(numbers, (count, decays))| {
                    let [values, first, second, gradients] = numbers;
                    Tensor {
                        values: kernels.slice_mut(values),
                        first: kernels.slice_mut(first),
                        second: kernels.slice_mut(second),
                        gradients: kernels.slice(gradients),
                        count,
                        keep: if decays { 1.0 - 0.01 * adamw.weight_decay } else { 1.0 },
                    }
                });
                let tensors = kernels.tensors(tensors).unwrap();
                let total = kernels.sum_of_squares(&tensors).unwrap();
                let mut bytes = [0; 8];
                kernels.read(kernels.slice(&total), &mut bytes).unwrap();
                assert!((f64::from_ne_bytes(bytes) - square).abs() < 1e-9 * square);
                let with = AdamWArguments::new(&adamw, 4, 0.01, clip);
                let loss = kernels.upload(&loss.to_ne_bytes()).unwrap();
                kernels.adamw(&tensors, kernels.slice(&total), kernels.slice(&loss), with).unwrap();
            }
            for (numbers, wanted) in on_device.iter().zip(&wanted) {
                for (i, (numbers, wanted)) in numbers.iter().zip(wanted).enumerate() {
                    let got = down(&kernels, numbers, Precision::F32, wanted.len());
                    assert_close::<M>(&got, wanted, 1e-6, &format!("{i} of {}, clip {clip}", wanted.len()));
                }
            }
        }
    }
}

fn products_of_transposed_and_partial_matrices_are_those_of_rust<M: Tested>() {
    for kernels in M::all() {
        let (m, n, k) = (5, 4, 7);
        let (a, b) = (noise(1, k * (m + 2), 1.0), noise(2, k * (n + 3), 1.0));
        let mut wanted = noise(3, m * n, 1.0);
        let (on_a, on_b, mut c) = (up(&kernels, &a), up(&kernels, &b), up(&kernels, &wanted));
        gemm::multiply(
            gemm::Threads::One,
            0.5,
            gemm::Matrix::new(&a, k, m + 2).columns(1..m + 1).transposed(),
            gemm::Matrix::new(&b, k, n + 3).columns(3..n + 3),
            gemm::Target::Add,
            gemm::MatrixMut::new(&mut wanted, m, n),
        );
        let a = Factor::new(kernels.slice(&on_a), Precision::F32, k, m + 2).columns(1, m).transposed();
        let b = Factor::new(kernels.slice(&on_b), Precision::F32, k, n + 3).columns(3, n);
        kernels.multiply(0.5, a, b, 1.0, kernels.slice_mut(&mut c), n).unwrap();
        assert_close::<M>(&down(&kernels, &c, Precision::F32, m * n), &wanted, 1e-5, "product");
    }
}

fn products_are_rounded_to_the_format_of_their_factors_where_that_is_asked_for<M: Tested>() {
    let (m, n, k, stride) = (5, 4, 7, 6);
    for (kernels, format) in M::all().into_iter().flat_map(|k| FORMATS.map(|format| (k.clone(), format))) {
        let (a, b) = (noise(1, m * k, 1.0), noise(2, k * n, 1.0));
        let rounded = |values: &[f32]| values.iter().map(|value| format.round(*value)).collect::<Vec<_>>();
        let mut wanted = vec![0.0; m * n];
        gemm::multiply(
            gemm::Threads::One,
            1.0,
            gemm::Matrix::new(&rounded(&a), m, k),
            gemm::Matrix::new(&rounded(&b), k, n),
            gemm::Target::Replace,
            gemm::MatrixMut::new(&mut wanted, m, n),
        );
        let on_device = [&a, &b].map(|values| kernels.upload(&in_format(values, format)).unwrap());
        let a = Factor::new(kernels.slice(&on_device[0]), format, m, k);
        let b = Factor::new(kernels.slice(&on_device[1]), format, k, n);
        let mut c = up(&kernels, &vec![f32::NAN; m * stride]);
        kernels.multiply_rounded(a, b, kernels.slice_mut(&mut c), stride).unwrap();
        let got = down(&kernels, &c, format, m * stride);
        let got: Vec<f32> = got.chunks(stride).flat_map(|row| row[..n].to_vec()).collect();
        assert_close::<M>(&got, &rounded(&wanted), tolerance(format), &format!("product in {format}"));
        assert_eq!(got, rounded(&got), "{format}");
    }
}
