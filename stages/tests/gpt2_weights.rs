//! Kind `gpt2`: which files it takes, what it says of others, and what it draws.

mod common;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use common::{
    lab::{Lab, kind, problems},
    reference,
    tiny::{Tiny, open_weights},
};
use half::{bf16, f16};
use pipe_stages::{
    contract::{Inputs, StageError},
    data::tensor_file::{self, RawTensor},
    gpt2::{Config, tensor_shapes},
};
use safetensors::Dtype;
use serde_json::{Value, json};

const SMALL: Config = Config { n_layer: 2, n_head: 2, n_embd: 128, block_size: 8, vocab_size: 11 };

type Tensors = BTreeMap<String, RawTensor<'static>>;

/// The tensors of a GPT-2 of the shape [`SMALL`], each number its place times 2⁻¹⁰.
fn small_tensors() -> Tensors {
    tensor_shapes(&SMALL).into_iter().map(|(name, shape)| (name, tensor(&shape, 1.0 / 1024.0))).collect()
}

fn tensor(shape: &[usize], step: f32) -> RawTensor<'static> {
    let length: usize = shape.iter().product();
    let bytes = (0..length).flat_map(|i| ((i % 200) as f32 * step).to_le_bytes()).collect();
    RawTensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
}

fn write(lab: &Lab, tensors: &Tensors) -> PathBuf {
    let path = lab.path("model.safetensors");
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    tensor_file::write(&path, &BTreeMap::from([("format".into(), "pt".into())]), &tensors).unwrap();
    path
}

fn load(lab: &Lab, file: &Path, with: Value) -> Result<PathBuf, StageError> {
    lab.run("gpt2", with, &[("file", file)]).map(|ran| ran.output("weights").to_owned())
}

fn refusal(tensors: &Tensors) -> String {
    let lab = Lab::new();
    load(&lab, &write(&lab, tensors), json!({})).unwrap_err().to_string()
}

#[test]
fn the_reference_model_is_read_number_by_number() {
    let Some(tiny) = Tiny::open() else { return };
    let lab = Lab::new();
    let weights = open_weights(&tiny.weights(&lab));
    let values = tiny.values("model.safetensors");
    let Config { n_layer, n_head, n_embd, block_size, vocab_size } = *weights.config();
    for (field, found) in [
        ("n_layer", n_layer),
        ("n_head", n_head),
        ("n_embd", n_embd),
        ("n_positions", block_size),
        ("vocab_size", vocab_size),
    ] {
        assert_eq!(json!(found), tiny.config[field], "{field}");
    }
    for name in values.names("") {
        assert_eq!(weights.tensor(&name), values.floats(&name), "{name}");
        assert_eq!(weights.shape(&name), values.shape(&name), "{name}");
    }
}

#[test]
fn prefixes_masks_and_a_tied_output_matrix_are_accepted() {
    let lab = Lab::new();
    let plain = load(&lab, &write(&lab, &small_tensors()), json!({})).unwrap();
    let mut dressed: Tensors =
        small_tensors().into_iter().map(|(name, tensor)| (format!("transformer.{name}"), tensor)).collect();
    for block in 0..SMALL.n_layer {
        dressed.insert(format!("transformer.h.{block}.attn.bias"), tensor(&[1, 1, 8, 8], 1.0));
        dressed.insert(format!("transformer.h.{block}.attn.masked_bias"), tensor(&[], 1.0));
    }
    dressed.insert("lm_head.weight".into(), small_tensors()["wte.weight"].clone());
    let dressed = load(&lab, &write(&lab, &dressed), json!({})).unwrap();
    assert_eq!(std::fs::read(plain).unwrap(), std::fs::read(dressed).unwrap());
}

#[test]
fn half_precision_files_are_widened() {
    let lab = Lab::new();
    let plain = open_weights(&load(&lab, &write(&lab, &small_tensors()), json!({})).unwrap());
    for dtype in [Dtype::F16, Dtype::BF16] {
        let narrow = |tensor: RawTensor<'static>| {
            let floats = tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            let bytes = floats.flat_map(|value| match dtype {
                Dtype::F16 => f16::from_f32(value).to_le_bytes(),
                _ => bf16::from_f32(value).to_le_bytes(),
            });
            RawTensor { dtype, shape: tensor.shape.clone(), bytes: bytes.collect() }
        };
        let tensors = small_tensors().into_iter().map(|(name, tensor)| (name, narrow(tensor))).collect();
        let weights = open_weights(&load(&lab, &write(&lab, &tensors), json!({})).unwrap());
        // Places below 200 have 8 significant bits: both types hold them exactly.
        assert_eq!(weights.tensor("h.1.mlp.c_fc.weight"), plain.tensor("h.1.mlp.c_fc.weight"), "{dtype}");
    }
}

#[test]
fn every_problem_of_a_file_is_named_with_wanted_and_found_shape() {
    let mut tensors = small_tensors();
    tensors.remove("h.1.ln_2.bias");
    tensors.insert("h.0.attn.c_attn.weight".into(), tensor(&[384, 128], 1.0));
    tensors.insert("score.weight".into(), tensor(&[2, 128], 1.0));
    tensors.insert("lm_head.weight".into(), tensor(&[11, 128], 2.0));
    let integers = RawTensor::int32([0; 128].into_iter());
    tensors.insert("ln_f.bias".into(), integers);
    let message = refusal(&tensors);
    for problem in [
        "`h.1.ln_2.bias` [128] is missing",
        "`h.0.attn.c_attn.weight` has the shape [384, 128], not [128, 384]",
        "`score.weight` [2, 128] is no tensor of a GPT-2",
        "`ln_f.bias` is I32, not F32, F16 or BF16",
    ] {
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn an_output_matrix_of_its_own_is_refused() {
    let mut tensors = small_tensors();
    tensors.insert("lm_head.weight".into(), tensor(&[11, 128], 2.0));
    assert!(refusal(&tensors).contains("`lm_head.weight` differs from `wte.weight`"));
}

#[test]
fn files_that_are_no_gpt2_are_refused() {
    assert!(refusal(&Tensors::new()).contains("`wte.weight` is missing"));
    let mut no_blocks = small_tensors();
    no_blocks.retain(|name, _| !name.starts_with("h."));
    assert!(refusal(&no_blocks).contains("there are no blocks"));
    let mut odd_head = small_tensors();
    odd_head.insert("wte.weight".into(), tensor(&[11, 100], 1.0));
    assert!(refusal(&odd_head).contains("set `n_head`"));
    let mut broken = small_tensors();
    broken.insert("ln_f.bias".into(), tensor(&[128], f32::NAN));
    assert!(refusal(&broken).contains("`ln_f.bias`"));

    let lab = Lab::new();
    let path = lab.path("page.html");
    std::fs::write(&path, "<html>not found</html>").unwrap();
    assert!(load(&lab, &path, json!({})).unwrap_err().to_string().contains("not a whole safetensors file"));
}

#[test]
fn a_file_of_the_official_names_and_shapes_loads() {
    let Some(list) = reference("gpt2_124m_tensor_sha256.json") else { return };
    let list: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
    let mut tensors: BTreeMap<String, Vec<usize>> = list
        .into_iter()
        .map(|(name, entry)| (name, serde_json::from_value(entry["shape"].clone()).unwrap()))
        .collect();
    tensors.extend((0..12).map(|block| (format!("h.{block}.attn.bias"), vec![1, 1, 1024, 1024])));
    assert_eq!(tensors.len(), 160);
    let shapes: Vec<_> =
        tensors.iter().map(|(name, shape)| (name.as_str(), Dtype::F32, shape.as_slice())).collect();
    let header = tensor_file::header(&BTreeMap::new(), &shapes);
    let lab = Lab::new();
    let path = lab.path("model.safetensors");
    let mut file = File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    let numbers: usize = tensors.values().map(|shape| shape.iter().product::<usize>()).sum();
    file.set_len((header.len() + 4 * numbers) as u64).unwrap();

    let ran = lab.run("gpt2", json!({}), &[("file", &path)]).unwrap();
    assert_eq!(ran.metric("parameters"), Some(124_439_808.0));
    assert_eq!(*open_weights(ran.output("weights")).config(), Config::GPT2_124M);
}

const RANDOM: &str = "random";

fn random_small() -> Value {
    json!({ "init": RANDOM, "n_layer": 2, "n_embd": 64, "block_size": 16, "vocab_size": 50, "seed": 7 })
}

#[test]
fn random_weights_are_these_bytes_on_any_number_of_threads() {
    let mut lab = Lab::new();
    for threads in [1, 3] {
        lab.threads = threads;
        let ran = lab.run("gpt2", random_small(), &[]).unwrap();
        insta::allow_duplicates! {
            insta::assert_snapshot!(ran.digest("weights"), @"0dc9bf4c2835936e1909e5847f9f4c08bdb30185b23ed2d972a622e63369560b");
        }
    }
}

#[test]
fn random_weights_have_gpt2s_initial_deviations() {
    let lab = Lab::new();
    let with = json!({ "init": RANDOM, "n_layer": 2, "n_embd": 128, "block_size": 256, "vocab_size": 1000 });
    let ran = lab.run("gpt2", with, &[]).unwrap();
    let weights = open_weights(ran.output("weights"));
    let moments = |name: &str| {
        let values = weights.tensor(name);
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>();
        (mean, (square / values.len() as f64).sqrt())
    };
    for (name, wanted) in [
        ("wte.weight", 0.02),
        ("wpe.weight", 0.02),
        ("h.0.attn.c_attn.weight", 0.02),
        ("h.1.mlp.c_fc.weight", 0.02),
        ("h.0.attn.c_proj.weight", 0.01),
        ("h.1.mlp.c_proj.weight", 0.01),
    ] {
        let (mean, deviation) = moments(name);
        assert!(mean.abs() < 5e-4 && (deviation / wanted - 1.0).abs() < 0.02, "{name} {mean} {deviation}");
    }
    assert!(weights.tensor("h.0.ln_1.weight").iter().all(|value| value.to_bits() == 1.0f32.to_bits()));
    assert!(weights.tensor("h.1.mlp.c_fc.bias").iter().all(|value| value.to_bits() == 0));
    assert_ne!(weights.tensor("h.0.mlp.c_fc.weight")[..8], weights.tensor("h.1.mlp.c_fc.weight")[..8]);
}

#[test]
fn random_weights_of_the_full_shape_come_from_defaults() {
    let lab = Lab::new();
    let ran = lab.run("gpt2", json!({ "init": RANDOM }), &[]).unwrap();
    assert_eq!(ran.metric("parameters"), Some(124_439_808.0));
    assert_eq!(*open_weights(ran.output("weights")).config(), Config::GPT2_124M);
}

#[test]
fn parameters_that_do_not_fit_are_named() {
    assert_eq!(
        problems("gpt2", json!({ "n_layer": 3, "seed": 1 })),
        [
            "n_layer: `n_layer` means nothing with `init: file`",
            "seed: `seed` means nothing with `init: file`"
        ]
    );
    assert_eq!(
        problems("gpt2", json!({ "init": RANDOM, "n_embd": 100, "n_head": 3 })),
        ["n_head: `n_head` 3 does not divide `n_embd` 100"]
    );
    assert_eq!(
        problems("gpt2", json!({ "init": RANDOM, "n_embd": 200 })),
        ["n_embd: `n_head` 3 does not divide `n_embd` 200"]
    );
    assert_eq!(
        problems("gpt2", json!({ "init": RANDOM, "n_layer": 0 })),
        ["n_layer: `n_layer` must be at least 1"]
    );
    assert_eq!(
        problems("gpt2", json!({ "init": RANDOM, "vocab_size": u64::MAX })),
        ["vocab_size: a GPT-2 of this shape would have 14167099448609021361408 parameters"]
    );
}

#[test]
fn only_a_file_needs_an_input_and_defaults_are_part_of_the_key() {
    let random = kind("gpt2").resolve(json!({ "init": RANDOM })).unwrap();
    assert_eq!(random.ports.inputs, Inputs::Fixed(Vec::new()));
    let written_out = json!({ "init": RANDOM, "n_layer": 12, "n_head": 12, "seed": 0 });
    assert_eq!(kind("gpt2").resolve(written_out).unwrap().hashed, random.hashed);
    assert!(kind("gpt2").resolve(Value::Null).unwrap().ports.input_type("file").is_some());
}
