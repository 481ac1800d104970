//! Trained models for Python: computed here from the exported files alone, as `transformers` and `peft` do.

use std::{collections::BTreeMap, fs, path::Path, sync::OnceLock};

use pipe::{
    export,
    names::RunId,
    record::Artifact,
    runs::{LoadedRun, LoadedStage, RunsDb},
};
use pipe_stages::{
    contract::PortType,
    data::{Tokens, read_predictions},
    gpt2::{Config, Forward, Weights, blocks_from, embed, final_norm, tensor_shapes, write_weights},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{EXPERIMENT, Lab, shown};

/// Tensors by name: shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Adds a stage with another set of targets, makes the additions large enough to decide scores, and keeps
/// states as computed, so that only rounding is left.
fn experiment() -> String {
    let training = "train_blocks: 1, steps: 20, warmup: 2, eval_every: 10, batch: 4, micro_batch: 2";
    let text = EXPERIMENT.replace("blocks: 1 }", "blocks: 1, dtype: f32 }");
    let text = text.replace("rank: 8 }", "rank: 8, alpha: 16, lr: 3e-2 }");
    format!(
        "{text}  wide:
    kind: lora
    in: {{ hidden: trunk_train, weights: gpt2 }}
    with: {{ {training}, rank: 3, alpha: 4.5, lr: 3e-2, targets: [q, k, v, o] }}
  wide_tuned: {{ kind: classify, in: {{ hidden: trunk_test, weights: gpt2, model: wide }} }}
"
    )
}

/// A project whose first run was exported to `models/`.
fn exported() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::new(&experiment());
        lab.run(&[]).success();
        lab.pipe(&["export", "run_1", "--to", "transformers"]).success();
        lab
    })
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn tensors(path: &Path) -> Tensors {
    let buffer = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&buffer).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt", "transformers asks for it");
    let file = SafeTensors::deserialize(&buffer).unwrap();
    let values = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let of = |(name, tensor): (&str, safetensors::tensor::TensorView<'_>)| {
        (name.to_owned(), (tensor.shape().to_vec(), values(tensor.data())))
    };
    file.iter().map(of).collect()
}

/// The object that a stage of the first run wrote.
fn output(lab: &Lab, stage: &str) -> std::path::PathBuf {
    let shown = shown(lab, "run_1");
    let stage = shown["stages"].as_array().unwrap().iter().find(|it| it["stage"] == stage).unwrap();
    let digest = stage["execution"]["outputs"][0]["digest"].as_str().unwrap();
    lab.path("cache/v1/objects").join(&digest[..2]).join(&digest[2..])
}

/// What `stage`, of kind `classify`, said.
fn predicted(lab: &Lab, stage: &str) -> Vec<f64> {
    read_predictions(&output(lab, stage)).unwrap().into_iter().map(|row| row.score).collect()
}

/// The probability of positive that a model of one label without a bias gives each test review.
///
/// `config` is a `config.json`, `model` has the names of its checkpoint.
fn scores(lab: &Lab, config: &Value, model: &Tensors) -> Vec<f64> {
    let number = |name: &str| config[name].as_u64().unwrap() as usize;
    let shape = Config {
        n_layer: number("n_layer"),
        n_head: number("n_head"),
        n_embd: number("n_embd"),
        block_size: number("n_positions"),
        vocab_size: number("vocab_size"),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let parts = tensor_shapes(&shape).into_iter().map(|(name, _)| &model[&format!("transformer.{name}")].1);
    write_weights(&path, &shape, parts).unwrap();
    let weights = Weights::open(&path).unwrap();
    let tokens = Tokens::read(&output(lab, "tokens_test")).unwrap();
    let mut forward = Forward::new(&shape, config["activation_function"].as_str().unwrap().parse().unwrap());
    let mut states = embed(&weights, &tokens.tokens, &tokens.rows.offsets);
    let blocks = blocks_from(&weights, None, 0);
    let last = forward.last_hidden(&blocks, &final_norm(&weights, None), &mut states, &tokens.rows.offsets);
    let logits = forward.head(&model["score.weight"].1, 0.0, &last);
    logits.into_iter().map(|logit| 1.0 / (1.0 + (-f64::from(logit)).exp())).collect()
}

/// What `peft` makes of the model in `folder/base` and the adapter in `folder`, and the base's `config.json`.
fn with_adapter(folder: &Path) -> (Value, Tensors) {
    let config = json_file(&folder.join("adapter_config.json"));
    let base = Path::new(config["base_model_name_or_path"].as_str().unwrap());
    assert_eq!(base.canonicalize().unwrap(), folder.join("base").canonicalize().unwrap());
    assert_eq!((&config["peft_type"], &config["task_type"]), (&json!("LORA"), &json!("SEQ_CLS")));
    assert_eq!(config["fan_in_fan_out"], true, "GPT-2 stores its matrices as [in, out]");
    let published = tensors(&base.join("model.safetensors"));
    let mut model: Tensors =
        published.into_iter().map(|(name, tensor)| (format!("transformer.{name}"), tensor)).collect();
    let mut adapter: Tensors = tensors(&folder.join("adapter_model.safetensors"))
        .into_iter()
        .map(|(name, tensor)| (name.strip_prefix("base_model.model.").unwrap().to_owned(), tensor))
        .collect();
    let of_module = |module: &str, pattern: &str, default: &str| {
        let patterns = config[pattern].as_object().unwrap();
        let own = patterns.iter().find(|(ending, _)| module.ends_with(&format!(".{ending}")));
        own.map_or(&config[default], |(_, value)| value).as_f64().unwrap()
    };
    for module in config["target_modules"].as_array().unwrap() {
        let module = module.as_str().unwrap();
        let (of_a, a) = adapter.remove(&format!("{module}.lora_A.weight")).unwrap();
        let (of_b, b) = adapter.remove(&format!("{module}.lora_B.weight")).unwrap();
        let rank = of_module(module, "rank_pattern", "r");
        let scale = of_module(module, "alpha_pattern", "lora_alpha") / rank;
        let (shape, weight) = model.get_mut(&format!("{module}.weight")).unwrap();
        let (inputs, outputs, rank) = (shape[0], shape[1], rank as usize);
        assert_eq!((of_a, of_b), (vec![rank, inputs], vec![outputs, rank]), "{module}");
        for (i, o) in (0..inputs).flat_map(|i| (0..outputs).map(move |o| (i, o))) {
            let sum: f64 = (0..rank).map(|r| f64::from(a[r * inputs + i]) * f64::from(b[o * rank + r])).sum();
            weight[i * outputs + o] += (scale * sum) as f32;
        }
    }
    let saved = config["modules_to_save"].as_array().unwrap();
    for (name, tensor) in adapter {
        assert!(saved.iter().any(|module| name.contains(module.as_str().unwrap())), "{name} is loaded");
        model.insert(name, tensor);
    }
    (json_file(&base.join("config.json")), model)
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn a_fine_tuned_checkpoint_has_the_names_of_transformers_and_the_scores_of_classify() {
    let lab = exported();
    let folder = lab.path("models/run_1/fine_tune");
    let config = json_file(&folder.join("config.json"));
    assert_eq!(config["architectures"], json!(["GPT2ForSequenceClassification"]));
    assert_eq!(config["id2label"].as_object().unwrap().len(), 1, "one label");
    let model = tensors(&folder.join("model.safetensors"));
    assert_eq!(model.len(), 2 + 2 * 12 + 2 + 1);
    assert_eq!(model["transformer.h.1.attn.c_attn.weight"].0, [16, 48]);
    assert_eq!(model["score.weight"].0, [1, 16]);
    let found = largest_difference(&scores(lab, &config, &model), &predicted(lab, "fine_tuned"));
    assert!(found < 1e-6, "scores differ by {found}");
}

#[test]
fn adapters_have_the_names_of_peft_and_the_scores_of_classify() {
    let lab = exported();
    for (stage, classify) in [("lora", "lora_tuned"), ("wide", "wide_tuned")] {
        let folder = lab.path("models/run_1").join(stage);
        let (config, model) = with_adapter(&folder);
        let wanted = predicted(lab, classify);
        let found = largest_difference(&scores(lab, &config, &model), &wanted);
        assert!(found < 1e-6, "{stage}: scores differ by {found}");
        let base = tensors(&folder.join("base/model.safetensors"));
        let mut bare = model.clone();
        for name in ["h.1.attn.c_attn.weight", "h.1.attn.c_proj.weight"] {
            bare.insert(format!("transformer.{name}"), base[name].clone());
        }
        let moved = largest_difference(&scores(lab, &config, &bare), &wanted);
        assert!(moved > 1e-3, "{stage}: the additions decide scores, by {moved}");
    }
}

#[test]
fn an_adapter_of_queries_and_values_adds_nothing_to_keys() {
    let lab = exported();
    let adapter = tensors(&lab.path("models/run_1/lora/adapter_model.safetensors"));
    let module = "base_model.model.transformer.h.1.attn.c_attn";
    let names: Vec<&str> = adapter.keys().map(String::as_str).collect();
    let (a, b) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
    let ln_f = "base_model.model.transformer.ln_f";
    let (bias, weight) = (format!("{ln_f}.bias"), format!("{ln_f}.weight"));
    assert_eq!(names, ["base_model.model.score.weight", &a, &b, &bias, &weight]);
    assert_eq!((&adapter[&a].0[..], &adapter[&b].0[..]), (&[16, 16][..], &[48, 16][..]));
    let is_zero = |rows: std::ops::Range<usize>| {
        adapter[&b].1[rows.start * 16..rows.end * 16].iter().all(|it| *it == 0.0)
    };
    assert!(is_zero(16..32) && !is_zero(0..16) && !is_zero(32..48));
}

#[test]
fn a_stage_can_be_chosen_and_a_folder_that_is_there_is_replaced() {
    let lab = exported();
    let arguments = ["export", "run_1", "--to", "transformers", "--stage", "wide", "--out", "chosen"];
    lab.pipe(&arguments).success();
    lab.write("chosen/run_1/wide/old", "");
    insta::assert_snapshot!(lab.pipe(&arguments).success().stderr, @"wrote chosen/run_1/wide: an adapter for peft, of the model in its folder `base`");
    assert!(!lab.path("chosen/run_1/wide/old").exists());
    let written: Vec<_> =
        fs::read_dir(lab.path("chosen/run_1")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(written, ["wide"]);
}

#[test]
fn a_stage_that_trained_nothing_and_a_form_without_stages_are_refused() {
    let lab = exported();
    let said = lab.pipe(&["export", "run_1", "--to", "transformers", "--stage", "eval"]).ends_with_code(2);
    insta::assert_snapshot!(said.stderr, @"
    x no stage `eval` of run_1 trained a model
    help: it has those of fine_tune, lora, wide
    ");
    let said = lab.pipe(&["export", "run_1", "--to", "csv", "--stage", "lora"]).ends_with_code(2);
    assert_eq!(said.stderr.trim(), "x `--stage` goes with `--to transformers` alone");
}

#[test]
fn a_collected_model_is_named_with_the_command_that_computes_it_again() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    let object = output(&lab, "lora");
    fs::remove_file(&object).unwrap();
    let said = lab.pipe(&["export", "@last", "--to", "transformers", "--stage", "lora"]).ends_with_code(2);
    insta::assert_snapshot!(said.stderr, @"
    x the trained weights of `lora` in run_1: missing in the cache
    help: `pipe reproduce run_1` computes it again
    ");
    assert!(!lab.path("models/run_1/lora").exists());
    lab.pipe(&["reproduce", "run_1"]).success();
    lab.pipe(&["export", "run_1", "--to", "transformers", "--stage", "lora"]).success();
}

#[test]
fn weights_that_no_stage_made_are_named_with_the_way_to_keep_them() {
    let lab = Lab::new(EXPERIMENT);
    lab.run(&[]).success();
    fs::copy(output(&lab, "gpt2"), lab.path("weights")).unwrap();
    let from_file = EXPERIMENT.replace("weights: gpt2", "weights: { file: weights }");
    lab.write("pipelines/p.yaml", &from_file);
    lab.run(&["--until", "lora"]).success();
    let said = lab.pipe(&["export", "@last", "--to", "transformers", "--stage", "lora"]).ends_with_code(2);
    insta::assert_snapshot!(said.stderr, @"
    x the weights that `lora` started from are a file that no stage made
    help: read the file with a stage of kind `gpt2`, which keeps it, and train from that
    ");
}

/// The run with its random weights taken for a file that was fetched from `url`.
fn fetched(lab: &Lab, url: &str) -> LoadedRun {
    let mut run = RunsDb::open_existing(&lab.path("runs.db")).unwrap().load(RunId(1)).unwrap();
    let gpt2 = run.stages.iter_mut().find(|stage| stage.stage == "gpt2").unwrap();
    let mut fetch: LoadedStage = gpt2.clone();
    let digest = pipe::digest::Digest::from(blake3::hash(b"weights"));
    gpt2.params = json!({ "init": "file" });
    gpt2.execution.as_mut().unwrap().hashed["in"] = json!({ "file": digest.to_string() });
    fetch.stage = "weights_file".into();
    fetch.params = json!({ "url": url });
    let file = Artifact { port: "file".into(), port_type: PortType::File, digest, bytes: 1 };
    fetch.execution.as_mut().unwrap().outputs = vec![file];
    run.stages.insert(0, fetch);
    run
}

#[test]
fn weights_from_hugging_face_are_named_by_repository_and_commit() {
    let lab = exported();
    let url = "https://huggingface.co/openai-community/gpt2/resolve/607a30d7/model.safetensors";
    let run = fetched(lab, url);
    let published = export::trained(&run)[1].published.clone().unwrap();
    assert_eq!(
        (published.name.as_str(), published.revision.as_deref()),
        ("openai-community/gpt2", Some("607a30d7"))
    );
    let elsewhere = fetched(lab, "https://example.org/model.safetensors");
    assert_eq!(export::trained(&elsewhere)[1].published, None);
}
