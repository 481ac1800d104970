//! What training changed is written and read back, and must fit the weights.

use std::{collections::BTreeMap, path::Path};

use pipe_stages::gpt2::{Config, LoraTarget, Method, ModelFile};

const CONFIG: Config = Config { n_layer: 2, n_head: 1, n_embd: 2, block_size: 4, vocab_size: 3 };

fn lora() -> ModelFile {
    let tensor = |shape: &[usize], value: f32| (shape.to_vec(), vec![value; shape.iter().product()]);
    ModelFile {
        method: Method::Lora { rank: 3, alpha: 1.5, targets: vec![LoraTarget::Q, LoraTarget::V] },
        tensors: BTreeMap::from([
            ("h.1.lora_a_q".into(), tensor(&[2, 3], 1.0)),
            ("h.1.lora_b_q".into(), tensor(&[3, 2], 2.0)),
            ("h.1.lora_a_v".into(), tensor(&[2, 3], 3.0)),
            ("h.1.lora_b_v".into(), tensor(&[3, 2], 4.0)),
            ("head.weight".into(), tensor(&[2, 1], 5.0)),
            ("head.bias".into(), tensor(&[1], 6.0)),
        ]),
    }
}

fn refusal(path: &Path, model: &ModelFile) -> String {
    model.write(path).unwrap();
    ModelFile::read(path, &CONFIG).unwrap_err().to_string()
}

#[test]
fn a_model_is_read_as_it_was_written_and_written_alike_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    lora().write(&one).unwrap();
    lora().write(&two).unwrap();
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let read = ModelFile::read(&one, &CONFIG).unwrap();
    assert_eq!(read, lora());
    assert_eq!(read.trained_blocks(), [1]);
    assert_eq!(read.tensor("head.bias"), Some([6.0].as_slice()));
}

#[test]
fn a_model_that_does_not_fit_the_weights_is_refused_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    let mut model = lora();
    model.tensors.remove("h.1.lora_b_v");
    model.tensors.insert("h.2.lora_a_q".into(), (vec![2, 3], vec![0.0; 6]));
    model.tensors.insert("head.bias".into(), (vec![2], vec![0.0; 2]));
    let message = refusal(&path, &model);
    for problem in [
        "`h.1.lora_b_v` is missing",
        "`h.2.lora_a_q` is none of its tensors",
        "`head.bias` has the shape [2], not [1]",
    ] {
        assert!(message.contains(problem), "{message}");
    }

    let mut tuned = lora();
    tuned.method = Method::FineTune;
    tuned.tensors.retain(|name, _| name.starts_with("head."));
    assert!(refusal(&path, &tuned).contains("`ln_f.weight` is missing"));
}
