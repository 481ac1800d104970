//! A run whose stages are those of a matrix: a verb takes the file's name for all of them.

use std::{fs, sync::OnceLock};

use super::lab::{EXPERIMENT, Lab, SWEEP};

fn swept() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let lab = Lab::new(SWEEP);
        lab.run(&[]).success();
        lab
    })
}

/// The files below `folder`, in order.
fn below(lab: &Lab, folder: &str) -> Vec<String> {
    let files = lab.files(folder).into_iter();
    let mut files: Vec<String> =
        files.map(|path| path.strip_prefix(lab.path(folder)).unwrap().display().to_string()).collect();
    files.sort();
    files
}

#[test]
fn curves_of_a_matrix_are_one_drawing_whose_legend_says_what_differs() {
    let said = swept().pipe(&["plot", "run_1", "train.loss"]).success();
    assert!(said.stdout.starts_with("train.loss, of run_1\n") && said.stderr.is_empty(), "{}", said.stdout);
    let legend: Vec<&str> = said.stdout.lines().filter(|line| line.starts_with("━━")).collect();
    insta::assert_snapshot!(legend.join("\n"), @"
    ━━ rank=16,lr=0.001  4 → 16
    ━━ rank=16,lr=0.01   4 → 16
    ━━ rank=4,lr=0.001   4 → 4
    ━━ rank=4,lr=0.01    4 → 4
    ");
    let said = swept().pipe(&["plot", "run_1", "train[rank=4].loss"]).success().stdout;
    assert!(said.starts_with("train[rank=4].loss, of run_1\n") && said.contains("━━ lr=0.001  4"), "{said}");
    let said = swept().pipe(&["plot", "run_1", "train[rank=4,lr=0.01].loss"]).success().stdout;
    assert!(said.starts_with("train[rank=4,lr=0.01].loss, of run_1\n") && !said.contains("━━"), "{said}");
    let said = swept().pipe(&["plot", "run_1", "train.los"]).ends_with_code(2).stderr;
    assert!(said.contains("these have values at steps: train.loss\n"), "{said}");
}

#[test]
fn a_chart_of_a_matrix_has_a_colour_and_a_label_for_each() {
    let lab = swept();
    lab.pipe(&["plot", "run_1", "train[lr=1e-3].loss", "-o", "part.svg"]).success();
    let svg = fs::read_to_string(lab.path("part.svg")).unwrap();
    assert!(svg.contains(">train[lr=0.001].loss</text>"), "{svg}");
    for (class, label) in [("c0", "rank=4"), ("c1", "rank=16")] {
        assert!(svg.contains(&format!("<path class=\"line {class}\"")), "{svg}");
        assert!(svg.contains(&format!(">{label}</text>")), "{svg}");
    }
    assert!(!svg.contains("lr=0.01<") && !svg.contains("line c2"), "{svg}");
}

#[test]
fn more_curves_than_looks_are_said_to_be_too_many() {
    let lab = Lab::new(&SWEEP.replace("[4, 16]", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]"));
    lab.run(&[]).success();
    let said = lab.pipe(&["plot", "run_1", "train.loss", "-o", "loss.svg"]).success().stderr;
    assert_eq!(
        said,
        "26 curves are more than the 24 that can be told apart; `train[rank=1].loss` draws a part of them\n\
         wrote loss.svg\n"
    );
    let svg = fs::read_to_string(lab.path("loss.svg")).unwrap();
    assert!(svg.contains("and 2 more, which look alike"), "{svg}");
    assert!(svg.contains("line c0\"") && svg.contains("line c0 dotted\"") && svg.contains("line c0 pale\""));
}

#[test]
fn outputs_of_a_matrix_go_into_folders_that_no_shell_takes_for_patterns() {
    let lab = swept();
    let said = lab.pipe(&["get", "@last", "train.model"]).ends_with_code(2).stderr;
    assert!(said.contains("4 outputs are meant") && said.contains("--into DIR"), "{said}");
    lab.pipe(&["get", "@last", "train[rank=16].model", "--into", "models"]).success();
    assert_eq!(below(lab, "models"), ["train/rank=16,lr=0.001/model", "train/rank=16,lr=0.01/model"]);
    assert_eq!(lab.pipe(&["get", "@last", "train[rank=4,lr=1e-2]"]).success().stdout, "4 0.01\n");
    let said = lab.pipe(&["get", "@last", "train.mode"]).ends_with_code(2).stderr;
    insta::assert_snapshot!(said, @"
    x run_1 has no metric, output or stage `train.mode`
    help: did you mean `train.model`?
    ");
}

#[test]
fn what_failed_is_left_out_and_said() {
    let lab = Lab::new(&SWEEP.replace("'echo rank", "'test {params.rank} = 4; echo rank"));
    lab.run(&["--keep-going"]).ends_with_code(1);
    let said = lab.pipe(&["get", "@last", "train.model", "--into", "models"]).success();
    assert!(said.stderr.starts_with("`train[rank=16,lr=0.001]` has no result in run_1 and is left out\n"));
    assert_eq!(lab.files("models").len(), 2);
    let said = lab.pipe(&["get", "@last", "train[rank=16].model"]).ends_with_code(2).stderr;
    assert!(said.contains("`pipe logs run_1 'train[rank=16,lr=0.001]'`"), "{said}");
}

#[test]
fn conditions_and_columns_take_names_with_brackets() {
    let condition = "train[rank=4,lr=0.001].loss >= 4 and not train[rank=16,lr=0.01].loss=4";
    let columns = "seed,train[rank=16,lr=0.001].params.rank";
    let said = swept().pipe(&["runs", "--where", condition, "--columns", columns, "--csv"]).success().stdout;
    assert_eq!(said, "run,seed,\"train[rank=16,lr=0.001].params.rank\"\nrun_1,0,16\n");
    let said = swept().pipe(&["runs", "--where", "train[rank=4,lr=0.001].loss=5"]).success().stdout;
    assert_eq!(said, "no run meets this\n");
}

#[test]
fn other_tools_get_names_that_they_take() {
    let lab = swept();
    lab.pipe(&["export", "run_1", "--to", "mlflow"]).success();
    let files = below(lab, "mlruns");
    for name in ["metrics/train rank:4 lr:0.01.loss", "params/train rank:16 lr:0.001.params.rank"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{name}: {files:#?}");
    }
    assert!(files.iter().all(|file| !file.contains(['[', ']', '=', ','])), "{files:#?}");
    lab.pipe(&["export", "run_1", "--to", "tensorboard"]).success();
    let events = fs::read(&lab.files("tensorboard")[0]).unwrap();
    assert!(String::from_utf8_lossy(&events).contains("train[rank=4,lr=0.01]/loss"));
}

#[test]
fn a_graph_of_a_matrix_has_ids_that_mermaid_and_dot_take() {
    let lab = swept();
    let mermaid = lab.pipe(&["dag", "pipelines/p.yaml", "--format", "mermaid"]).success().stdout;
    insta::assert_snapshot!(mermaid, @r#"
    flowchart TD
      s_data["data<br/><small>shell</small>"]
      m_train_1["train[rank=4,lr=0.001]<br/><small>shell</small>"]
      m_train_2["train[rank=4,lr=0.01]<br/><small>shell</small>"]
      m_train_3["train[rank=16,lr=0.001]<br/><small>shell</small>"]
      m_train_4["train[rank=16,lr=0.01]<br/><small>shell</small>"]
      m_both_1["both[rank=4]<br/><small>shell</small>"]
      m_both_2["both[rank=16]<br/><small>shell</small>"]
      s_data -->|"x"| m_train_1
      s_data -->|"x"| m_train_2
      s_data -->|"x"| m_train_3
      s_data -->|"x"| m_train_4
      m_train_1 -->|"model → m[lr=0.001]"| m_both_1
      m_train_2 -->|"model → m[lr=0.01]"| m_both_1
      m_train_3 -->|"model → m[lr=0.001]"| m_both_2
      m_train_4 -->|"model → m[lr=0.01]"| m_both_2
    "#);
    let dot = lab.pipe(&["dag", "pipelines/p.yaml", "--format", "dot"]).success().stdout;
    let edge = r#""train[rank=4,lr=0.001]" -> "both[rank=4]" [label="model → m[lr=0.001]"];"#;
    assert!(dot.contains(edge), "{dot}");
}

#[test]
fn a_list_and_a_graph_of_very_many_stages_have_those_of_a_matrix_as_one() {
    let list = |more: &[&str]| swept().pipe(&[&["dag", "pipelines/p.yaml"], more].concat()).success();
    insta::assert_snapshot!(list(&[]).stdout, @"
    sweep: 7 stages

    data              shell
    train (4 stages)  shell  <- x: data
    both (2 stages)   shell  <- m: train
    ");
    insta::assert_snapshot!(list(&["--all"]).stdout, @"
    sweep: 7 stages

    data                     shell
    train[rank=4,lr=0.001]   shell  <- x: data
    train[rank=4,lr=0.01]    shell  <- x: data
    train[rank=16,lr=0.001]  shell  <- x: data
    train[rank=16,lr=0.01]   shell  <- x: data
    both[rank=4]             shell  <- m[lr=0.001]: train[rank=4,lr=0.001],
                                       m[lr=0.01]: train[rank=4,lr=0.01]
    both[rank=16]            shell  <- m[lr=0.001]: train[rank=16,lr=0.001],
                                       m[lr=0.01]: train[rank=16,lr=0.01]
    ");
    let ranks: Vec<String> = (1..=40).map(|rank| rank.to_string()).collect();
    let lab = Lab::new(&SWEEP.replace("4, 16", &ranks.join(", ")));
    let said = lab.pipe(&["dag", "pipelines/p.yaml"]).success();
    insta::assert_snapshot!(said.stdout, @"
    sweep: 121 stages

    data               shell
    train (80 stages)  shell  <- x: data
    both (40 stages)   shell  <- m: train
    ");
    assert_eq!(said.stderr, "");
    let drawn = |more: &[&str]| {
        lab.pipe(&[&["dag", "pipelines/p.yaml", "--format", "mermaid"], more].concat()).success()
    };
    let one = drawn(&[]);
    assert_eq!(
        one.stderr,
        "121 stages are many to draw: those of a matrix are drawn as one; `--all` draws each\n"
    );
    assert!(one.stdout.contains("  s_train[\"train (80 stages)<br/>"), "{}", one.stdout);
    assert_eq!(one.stdout.lines().count(), 6);
    let each = drawn(&["--all"]);
    assert_eq!((each.stdout.matches("[\"train[rank=").count(), each.stderr.as_str()), (80, ""));
}

#[test]
fn a_report_draws_a_matrix_in_one_chart_and_says_what_differs_in_its_graph() {
    let lab = swept();
    lab.pipe(&["report", "run_1", "--out", "report.html"]).success();
    let page = fs::read_to_string(lab.path("report.html")).unwrap();
    assert_eq!(page.matches("<figcaption>train.loss</figcaption>").count(), 1);
    assert_eq!(page.matches("<figure class=\"chart\"").count(), 1);
    assert!(page.contains("</span>rank=16,lr=0.001</li>"), "a legend");
    assert!(page.contains(">rank=16,lr=0.001</text>") && page.contains(">train: ran, "), "a graph");
}

#[test]
fn methods_that_are_gathered_are_in_the_order_of_their_values_in_a_report() {
    let pipeline = EXPERIMENT
        .replace("  lora:\n", "  lora:\n    matrix: { rank: [16, 4] }\n")
        .replace("rank: 8", "rank: '${matrix.rank}'")
        .replace("lora: lora_tuned", "lora: { gather: lora_tuned }");
    let lab = Lab::new(&pipeline);
    lab.run(&[]).success();
    lab.pipe(&["report", "@last", "--out", "report.html"]).success();
    let page = fs::read_to_string(lab.path("report.html")).unwrap();
    let place = |method: &str| page.find(&format!("<caption>eval: {method}</caption>")).expect(method);
    assert!(place("fine_tuned") < place("lora[rank=4]") && place("lora[rank=4]") < place("lora[rank=16]"));
}
