//! Stages that fail: exit code 1, one clear error, and what is finished is kept.

use std::fs;

use crate::lab::{EXPERIMENT, Lab};

/// A pipeline whose first stage succeeds and whose second reads the file `input`.
fn archive_pipeline() -> Lab {
    Lab::new(
        "stages:
  good: { kind: sample_reviews, with: { train: 2, test: 2 } }
  reviews: { kind: reviews, in: { archive: { file: input } } }
  tokens: { kind: tokenize, in: { reviews: reviews.test } }
",
    )
}

/// The error of the one failed stage; everything that could be finished was kept.
#[track_caller]
fn fails(lab: &Lab, stage: &str) -> String {
    let said = lab.run(&["-j", "1"]).ends_with_code(1);
    assert_eq!(said.stages("failed"), [stage], "{}", said.stderr);
    assert!(said.stderr.contains("what is done is kept"), "{}", said.stderr);
    assert_eq!(lab.ask::<String>("SELECT status FROM run ORDER BY id DESC LIMIT 1"), "failed");
    lab.ask("SELECT error FROM stage WHERE outcome = 'failed' ORDER BY run DESC LIMIT 1")
}

#[test]
fn a_truncated_archive() {
    let lab = archive_pipeline();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for number in 0..200 {
        let text = format!("{number} {}", "words that hardly repeat ".repeat(number));
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        let name = format!("aclImdb/train/pos/{number}_9.txt");
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let whole = tar.into_inner().unwrap().finish().unwrap();
    lab.write("input", &whole[..whole.len() / 2]);
    let error = fails(&lab, "reviews");
    assert!(error.contains("cut short") || error.contains("truncated"), "{error}");
    assert_eq!(lab.run(&[]).ends_with_code(1).stages("cached"), ["good"]);
}

#[test]
fn an_archive_with_a_path_that_leads_out_of_it() {
    let lab = archive_pipeline();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..28].copy_from_slice(b"aclImdb/../../etc/pwned_1.tx");
    header.set_size(1);
    header.set_cksum();
    tar.append(&header, &b"x"[..]).unwrap();
    lab.write("input", tar.into_inner().unwrap());
    let error = fails(&lab, "reviews");
    assert!(error.contains("`aclImdb/../../etc/pwned_1.tx`"), "{error}");
}

#[test]
fn weights_without_a_tensor_and_with_a_wrong_shape() {
    let lab = Lab::new(
        "stages:
  good: { kind: sample_reviews, with: { train: 2, test: 2 } }
  gpt2: { kind: gpt2, in: { file: { file: input } } }
",
    );
    let header = r#"{"wte.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0; 16]);
    lab.write("input", bytes);
    let error = fails(&lab, "gpt2");
    assert!(error.contains("wpe.weight"), "{error}");
}

#[test]
fn an_unreachable_address() {
    let lab = Lab::new(
        "stages:
  good: { kind: sample_reviews, with: { train: 2, test: 2 } }
  file: { kind: fetch, with: { url: 'http://127.0.0.1:9/x', retries: 0, sha256: 56cd5dc1a78c94c62b32c08cdd4c4793f5e58ffbfa171aabe0d11d396dc56685 } }
",
    );
    let error = fails(&lab, "file");
    assert!(error.contains("http://127.0.0.1:9/x"), "{error}");
}

#[test]
fn a_download_with_a_wrong_hash_names_both() {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let address = server.server_addr().to_ip().unwrap();
    let serving = std::thread::spawn(move || {
        let request = server.recv().unwrap();
        request.respond(tiny_http::Response::from_string("hello")).unwrap();
    });
    let wanted = "0".repeat(64);
    let lab = Lab::new(&format!(
        "stages: {{ file: {{ kind: fetch, with: {{ url: 'http://{address}/x', sha256: '{wanted}' }} }} }}"
    ));
    let error = fails(&lab, "file");
    serving.join().unwrap();
    let given = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert!(error.contains(&wanted) && error.contains(given), "{error}");
    assert!(lab.files("cache/v1/objects").is_empty(), "nothing of it is kept");
}

#[test]
fn a_cache_that_cannot_be_written_is_one_error_before_anything_runs_unless_all_are_hits() {
    let lab = Lab::new("stages: { good: { kind: sample_reviews, with: { train: 2, test: 2 } } }");
    lab.run(&[]).success();
    // A file where a folder should be stops even those whom permissions do not.
    fs::remove_dir_all(lab.path("cache/v1/scratch")).unwrap();
    lab.write("cache/v1/scratch", "in the way");
    assert!(lab.run(&[]).success().stderr.contains("nothing to do"));
    let said = lab.run(&["--set", "good.train=4"]).ends_with_code(1);
    assert!(said.stderr.contains("the cache cannot be written"), "{}", said.stderr);
    assert!(said.stages("running").is_empty(), "{}", said.stderr);
}

#[test]
fn an_index_that_cannot_be_made_makes_a_run_slower_and_no_more() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, in: { x: { dir: data } }, with: { command: 'ls {in.x} > {out.y}', outputs: [y] } } }",
    );
    fs::create_dir_all(lab.path("cache/v1/index.db/in_the_way")).unwrap();
    fs::create_dir(lab.path("data")).unwrap();
    lab.write("data/file", "1");
    assert_eq!(lab.run(&[]).success().stages("done"), ["a"]);
    assert_eq!(lab.run(&[]).success().stages("cached"), ["a"]);
}

#[test]
fn an_unknown_stage_or_device_is_the_persons_mistake() {
    let lab = Lab::new(EXPERIMENT);
    let said = lab.run(&["--until", "lara"]).ends_with_code(2);
    assert!(said.stderr.contains("`--until lara`: `pipelines/p.yaml` has no such stage"), "{}", said.stderr);
    assert!(said.stderr.contains("did you mean `lora`?"), "{}", said.stderr);
    let said = lab.run(&["--device", "cuda"]).ends_with_code(2);
    assert!(said.stderr.contains("computes on GPUs"), "{}", said.stderr);
    assert!(!lab.path("cache/v1").exists() && !lab.path("runs.db").exists(), "nothing was begun");
}
