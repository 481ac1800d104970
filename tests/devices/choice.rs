//! `--device`: a GPU where there is one, the processor elsewhere, one clear error where that is not meant.

use crate::{
    fake::{Fake, noted},
    lab::{EXPERIMENT, Lab, Said},
};

const LOADER: &str = "pipe-cuda-worker: error while loading shared libraries: ";

/// What an error says, on one line, with the folder of the tests left out.
fn told(said: &Said) -> String {
    // On a busy machine a first word says that something has begun.
    let lines = said.stderr.lines().filter(|line| !line.trim_start().starts_with("starting "));
    let words = lines.flat_map(str::split_whitespace).filter(|word| !["│", "╰─▶", "|"].contains(word));
    words.collect::<Vec<_>>().join(" ").replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "")
}

#[test]
fn cuda_without_a_worker_is_one_error_and_nothing_is_run() {
    let lab = Lab::new(EXPERIMENT);
    let mut command = lab.command(&["run", "pipelines/p.yaml", "--device", "cuda"]);
    let output = command.env("PIPE_CUDA_WORKER", "/nowhere/worker").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = Said { code: None, stdout: String::new(), stderr: String::from_utf8(output.stderr).unwrap() };
    insta::assert_snapshot!(told(&said), @"x there is no `/nowhere/worker`, which computes on GPUs help: `cargo build --release --features cuda` builds it beside `pipe`; or name another one in `PIPE_CUDA_WORKER`, or compute with `--device cpu`");
    assert!(!lab.path("runs.db").exists(), "no run has begun");
}

#[test]
fn the_worker_is_looked_for_beside_pipe() {
    let lab = Lab::new(EXPERIMENT);
    let folder = lab.path("bin");
    std::fs::create_dir(&folder).unwrap();
    let pipe = folder.join("pipe");
    std::fs::hard_link(env!("CARGO_BIN_EXE_pipe"), &pipe)
        .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_pipe"), &pipe).map(drop))
        .unwrap();
    let mut command = std::process::Command::new(pipe);
    command.args(["run", "pipelines/p.yaml", "--device", "cuda"]).current_dir(lab.path("."));
    let output = command.env_remove("PIPE_CUDA_WORKER").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap().split_whitespace().collect::<String>();
    let place = folder.canonicalize().unwrap().join("pipe-cuda-worker");
    assert!(said.contains(place.to_str().unwrap()), "{said}");
}

#[test]
fn a_worker_that_finds_no_gpu_says_what_is_missing_and_what_to_do() {
    let lab = Lab::new(EXPERIMENT);
    let told = |fake: &Fake| told(&fake.run(&lab, &["--device", "cuda"]).ends_with_code(2));
    let missing = |library: &str| {
        format!("{LOADER}{library}: cannot open shared object file: No such file or directory").leak()
    };
    insta::assert_snapshot!(told(&Fake::ending(missing("libcuda.so.1"), 127)), @"x `tests/devices/fake_worker.sh` does not start: libcuda.so.1 is not found help: install the NVIDIA driver, or compute with `--device cpu`");
    insta::assert_snapshot!(told(&Fake::ending(missing("libcublas.so.13"), 127)), @"x `tests/devices/fake_worker.sh` does not start: libcublas.so.13 is not found help: install the CUDA 13 runtime libraries, or name their folder in `LD_LIBRARY_PATH`, or compute with `--device cpu`");
    let old = Fake::failing("driver_too_old", "the driver supports CUDA 12.4, the worker needs 13.0");
    insta::assert_snapshot!(told(&old), @"x no GPU can be used: the driver supports CUDA 12.4, the worker needs 13.0 help: install a newer NVIDIA driver, or build the worker with an older CUDA toolkit, or compute with `--device cpu`");
    insta::assert_snapshot!(told(&Fake::failing("no_device", "the driver knows of no GPU")), @"x no GPU can be used: the driver knows of no GPU help: see whether `nvidia-smi` lists a GPU, and whether `CUDA_VISIBLE_DEVICES` hides it, or compute with `--device cpu`");
    insta::assert_snapshot!(told(&Fake::ending("Segmentation fault", 139)), @"x cannot ask `tests/devices/fake_worker.sh` for its GPUs: it ended with exit status: 139, having said `Segmentation fault` help: build it from the same sources as `pipe`, or compute with `--device cpu`");
    assert!(!lab.path("runs.db").exists(), "no run has begun");
}

#[test]
fn auto_takes_a_gpu_for_models_and_says_so_once() {
    let lab = Lab::new(EXPERIMENT);
    let said = Fake::with_gpus(1).run(&lab, &[]).success();
    let lines: Vec<&str> = said.stderr.lines().filter(|line| line.contains("Made-up")).collect();
    assert_eq!(lines, ["   device cuda: Made-up GPU (80 GiB)"]);
    let mut noted = noted(&lab);
    assert_eq!(noted.iter().filter(|line| *line == "probe").count(), 1, "{noted:?}");
    noted.sort_unstable();
    let models = ["fine_tune", "fine_tuned", "lora", "lora_tuned", "trunk_test", "trunk_train", "zero_shot"];
    let models: Vec<String> = models.iter().map(|stage| format!("{stage} on 0")).collect();
    noted.retain(|line| line != "probe");
    assert_eq!(noted, models);
}

#[test]
fn the_device_is_not_in_the_key_and_a_run_without_work_asks_no_driver() {
    let lab = Lab::new(EXPERIMENT);
    let machine = Fake::with_gpus(1);
    let on_processor = machine.run(&lab, &["--device", "cpu"]).success();
    assert!(!on_processor.stderr.contains("device"), "{}", on_processor.stderr);
    for _ in 0..2 {
        let again = machine.run(&lab, &[]).success().stderr;
        assert!(again.contains("nothing to do"), "{again}");
        assert!(again.contains("cached trunk_train   has the result of run_1, on cpu\n"), "{again}");
    }
    let why = machine.pipe(&lab, &["why", "pipelines/p.yaml", "lora"]).success().stdout;
    assert!(why.contains("has the result of run_1, on cpu\n"), "{why}");
    let plan = machine.run(&lab, &["-n"]).success().stdout;
    assert!(plan.contains("cached  lora          has the result of run_1, on cpu\n"), "{plan}");
    assert_eq!(noted(&lab), [""; 0]);
    let asked = machine.run(&lab, &["--device", "cuda"]).success().stderr;
    assert!(asked.contains("nothing to do"), "{asked}");
    assert_eq!(noted(&lab), ["probe"]);
}

#[test]
fn auto_computes_on_the_processor_where_no_gpu_can_be_used_and_says_why_if_asked() {
    let device = |fake: &Fake, arguments: &[&str]| -> Vec<String> {
        let lab = Lab::new(EXPERIMENT);
        let said = fake.run(&lab, &[&["--until", "trunk_test"], arguments].concat()).success();
        assert_eq!(noted(&lab), ["probe"]);
        let lines = said.stderr.lines().filter(|line| line.trim_start().starts_with("device"));
        lines.map(|line| line.trim_start().to_owned()).collect()
    };
    let none = Fake::failing("no_device", "the driver knows of no GPU");
    assert_eq!(device(&none, &[]), [""; 0]);
    let why = "device cpu, since no GPU can be used: the driver knows of no GPU";
    assert_eq!(device(&none, &["--device", "auto"]), [why]);
    let old = Fake::failing("driver_too_old", "the driver supports CUDA 12.4, the worker needs 13.0");
    let why = "device cpu, since no GPU can be used: the driver supports CUDA 12.4, the worker needs 13.0";
    assert_eq!(device(&old, &[]), [why], "a GPU that is left alone is worth a word");
}

#[test]
fn what_is_computed_again_is_computed_where_it_was_unless_told_otherwise() {
    let lab = Lab::new(EXPERIMENT);
    let machine = Fake::with_gpus(1);
    machine.run(&lab, &["--device", "cpu", "--until", "zero_shot"]).success();
    for verb in [&["verify", "@last"][..], &["reproduce", "@last", "--force"]] {
        machine.pipe(&lab, verb).success();
        assert_eq!(noted(&lab), [""; 0], "the record says that the processor computed it");
    }
    machine.pipe(&lab, &["verify", "@last", "zero_shot", "reviews", "--device", "cuda"]).success();
    assert_eq!(noted(&lab), ["probe", "zero_shot on 0"]);
    machine.pipe(&lab, &["reproduce", "@last", "--force", "--device", "cuda"]).success();
    assert_eq!(noted(&lab).len(), 2 + 1 + 2, "{:?}", noted(&lab));
    for verb in ["verify", "reproduce"] {
        let none = Fake::failing("no_device", "the driver knows of no GPU");
        let said = none.pipe(&lab, &[verb, "@last", "--device", "cuda"]).ends_with_code(2);
        assert!(said.stderr.contains("the driver knows of no GPU"), "{}", said.stderr);
    }
}
