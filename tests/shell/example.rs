//! `pipelines/own_script.yaml` as it ships.

use std::{fs, path::Path};

use crate::lab::Lab;

#[test]
fn the_example_learns_and_reruns_what_an_edit_touches() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let lab = Lab::new(&fs::read_to_string(source.join("own_script.yaml")).unwrap());
    fs::create_dir(lab.path("pipelines/own_script")).unwrap();
    for name in ["train.py", "data.py"] {
        let name = format!("own_script/{name}");
        fs::copy(source.join(&name), lab.path(&format!("pipelines/{name}"))).unwrap();
    }
    assert_eq!(lab.run(&[]).success().stages("done"), ["test_rows", "train", "train_rows"]);
    let accuracy = "SELECT value FROM final_metrics WHERE metric = 'train.test.accuracy' ORDER BY run DESC";
    assert!(lab.ask::<f64>(accuracy) > 0.8);

    let faster = lab.run(&["--set", "train.params.lr=0.5"]).success();
    assert_eq!(faster.stages("done"), ["train"]);
    assert!(faster.stderr.contains("with.params.lr: 0.1 → 0.5"), "{}", faster.stderr);

    let script = lab.path("pipelines/own_script/train.py");
    let text = fs::read_to_string(&script).unwrap();
    fs::write(&script, text + "\n# a remark\n").unwrap();
    let edited = lab.run(&[]).success();
    assert_eq!(edited.stages("done"), ["train"]);
    assert!(edited.stderr.contains("in.script"), "{}", edited.stderr);
}
