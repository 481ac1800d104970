//! The page that `pipe report` writes, parsed; `tests/browser/report.py` opens it in a browser.

use std::{collections::BTreeSet, process::Output};

use pipe::{digest::Digest, names::RunId, record::Metric};
use scraper::{ElementRef, Html, Selector};
use serde_json::json;

use crate::lab::{Lab, Stage, after, execution, noon, stage};

const CSV: &str =
    "id,length,label,score,prediction\nr1,10,1,0.9,1\nr2,20,0,0.97,1\nr3,300,1,0.4,0\nr4,20,0,0.1,0\n";

fn experiment(rank: u32, predictions: Digest) -> Vec<Stage> {
    let mut eval = stage("eval", "evaluate", json!({ "titles": { "lora": "LoRA" } }))
        .input("lora", json!("classify"), CSV)
        .metric("lora.accuracy", 0.5);
    eval.inputs["lora"] = json!(predictions);
    for (name, value) in [("tp", 1.0), ("fp", 1.0), ("fn", 1.0), ("tn", 1.0)] {
        eval = eval.metric(Box::leak(format!("lora.{name}").into_boxed_str()), value);
        eval = eval.metric(Box::leak(format!("lora.bin.0-256.{name}").into_boxed_str()), value);
    }
    vec![
        stage("reviews", "sample_reviews", json!({ "train": 10 })),
        stage("lora", "lora", json!({ "rank": rank })).input("reviews", json!("reviews.train"), "reviews"),
        stage("classify", "classify", json!({})).input("model", json!("lora"), "model"),
        eval,
    ]
}

/// Runs the experiment with a training of so many steps.
fn run(lab: &mut Lab, rank: u32, steps: u64) -> RunId {
    let predictions = Digest::from(blake3::hash(CSV.as_bytes()));
    lab.db.keep_predictions(predictions, CSV.as_bytes()).unwrap();
    let stages = experiment(rank, predictions);
    let run = lab.run(&stages);
    let mut trained = execution(run, &stages[1], after(run, 11));
    for name in ["loss", "learning_rate", "gradient_norm"] {
        let point = |step| Metric { name: name.into(), step: Some(step), value: Some((step as f64).sin()) };
        trained.metrics.extend((1..=steps).map(point));
    }
    trained.metrics.push(Metric { name: "validation_loss".into(), step: Some(steps), value: Some(0.25) });
    trained.metrics.push(Metric {
        name: "tensor.head.parameter_norm".into(),
        step: Some(1),
        value: Some(1.0),
    });
    lab.db.record_execution(&trained).unwrap();
    run
}

fn pipe(lab: &Lab, arguments: &[&str]) -> Output {
    let root = ["--root", lab.folder.path().to_str().unwrap()];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pipe"));
    command.args(root).args(arguments).output().unwrap()
}

fn page(lab: &Lab, runs: &[&str]) -> String {
    let output = pipe(lab, &[&["report"], runs].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn select<'a>(page: &'a Html, selector: &str) -> Vec<ElementRef<'a>> {
    page.select(&Selector::parse(selector).unwrap()).collect()
}

/// What a page must be, whatever it shows.
fn assert_sound(text: &str) -> Html {
    let page = Html::parse_document(text);
    assert!(page.errors.is_empty(), "{:?}", page.errors);
    let ids: Vec<&str> = select(&page, "[id]").iter().map(|element| element.attr("id").unwrap()).collect();
    let unique: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "ids are unique: {ids:?}");
    for element in select(&page, "*") {
        let name = element.value().name();
        assert!(!["script", "link", "img", "iframe", "object", "image", "use"].contains(&name), "{name}");
        for (attribute, value) in element.value().attrs() {
            assert!(
                !attribute.starts_with("on") && !["src", "srcset", "xlink:href"].contains(&attribute),
                "{attribute}"
            );
            assert!(
                attribute != "href" || (value.starts_with('#') && unique.contains(&value[1..])),
                "{value}"
            );
            let labels = if attribute == "aria-labelledby" { value } else { "" };
            assert!(labels.split_whitespace().all(|label| unique.contains(label)), "{value}");
        }
    }
    let styles: String = select(&page, "style").iter().flat_map(ElementRef::text).collect();
    assert!(!styles.contains("url(") && !styles.contains("@import") && !text.contains("http:"));
    for drawing in select(&page, "svg[role=img]") {
        let marks =
            Selector::parse("path.line, rect.bar, .interval circle, .node rect, .bar > rect").unwrap();
        assert!(drawing.select(&marks).next().is_some(), "a chart without marks: {}", drawing.html());
        assert!(!drawing.html().contains("NaN") && !drawing.html().contains("inf"));
    }
    page
}

#[test]
fn a_page_of_one_run_shows_all_of_it_without_a_cache() {
    let mut lab = Lab::new();
    run(&mut lab, 8, 300);
    let page = assert_sound(&page(&lab, &["run_1"]));
    let captions: Vec<String> =
        select(&page, "figcaption").iter().map(|caption| caption.text().collect()).collect();
    assert_eq!(
        captions,
        [
            "eval: accuracy by review length",
            "LoRA: scores",
            "lora.loss",
            "lora.learning_rate",
            "lora.gradient_norm",
            "When run_1 ran what"
        ]
    );
    assert_eq!(
        select(&page, "#curve-1 path.dashed").len(),
        1,
        "the validation loss is in the chart of the loss"
    );
    assert_eq!(select(&page, ".dag .node").len(), 4);
    assert_eq!(select(&page, ".dag .edge").len(), 3);
    assert_eq!(select(&page, ".timeline .bar").len(), 4);
    let cells: Vec<String> =
        select(&page, ".confusion strong").iter().map(|cell| cell.text().collect()).collect();
    assert_eq!(cells, ["1", "1", "1", "1"]);
    let wrong: Vec<String> =
        select(&page, ".mistakes tbody th").iter().map(|cell| cell.text().collect()).collect();
    assert_eq!(wrong, ["r2", "r3"], "the surest mistake comes first");
    let text: String = page.root_element().text().collect();
    for wanted in ["git checkout 4f1c2d3e5a6b7980", "pipe run toy.yaml", "anvil", "lora.rank", "0.25000"] {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert!(!text.contains("tensor.head"), "curves of tensors are too many to draw");
}

#[test]
fn curves_of_several_runs_lie_in_one_chart_and_shared_ones_once() {
    let mut lab = Lab::new();
    run(&mut lab, 8, 50);
    run(&mut lab, 16, 50);
    lab.run(&experiment(16, Digest::from(blake3::hash(CSV.as_bytes()))));
    let page = assert_sound(&page(&lab, &["run_1", "run_2", "run_3"]));
    let entries: Vec<String> =
        select(&page, "#curve-2 .legend li").iter().map(|entry| entry.text().collect()).collect();
    assert_eq!(entries, ["run_1", "run_2, run_3"]);
    let differs: String =
        select(&page, "#differences ~ .scroll tr.differs").iter().flat_map(ElementRef::text).collect();
    assert_eq!(differs, "lora.rank81616");
}

#[test]
fn what_people_wrote_is_text_and_nothing_else() {
    let hostile = "</td><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;";
    let mut lab = Lab::new();
    run(&mut lab, 8, 3);
    let mut start = Lab::start(hostile);
    start.pipeline = hostile.into();
    start.sets = vec![hostile.into()];
    start.invocation.host = hostile.into();
    let run = lab.run_as(
        start,
        &[stage("a</title><script>", "k\"><script>", json!({ hostile: hostile })).metric("<b>x</b>", 1.0)],
    );
    lab.db.note(run, hostile, noon()).unwrap();
    let page = assert_sound(&page(&lab, &["run_1", "run_2"]));
    let cells: Vec<String> = select(&page, "td").iter().map(|cell| cell.text().collect()).collect();
    assert!(cells.iter().filter(|cell| *cell == hostile).count() >= 3, "{cells:?}");
}

#[test]
fn long_trainings_stay_below_a_megabyte() {
    let mut lab = Lab::new();
    run(&mut lab, 8, 20_000);
    run(&mut lab, 16, 20_000);
    let text = page(&lab, &["run_1", "run_2"]);
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    assert_sound(&text);
}

#[test]
fn a_failed_run_and_an_empty_one_have_pages() {
    let mut lab = Lab::new();
    let run = lab.db.begin(&Lab::start("toy.yaml")).unwrap();
    let page = assert_sound(&page(&lab, &[&run.to_string()]));
    let text: String = page.root_element().text().collect();
    assert!(text.contains("executed nothing"), "{text}");
}

#[test]
fn an_unknown_run_is_told_and_nothing_written() {
    let mut lab = Lab::new();
    run(&mut lab, 8, 3);
    let file = lab.folder.path().join("report.html");
    let output = pipe(&lab, &["report", "run_9", "--out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!file.exists());
    let output = pipe(&lab, &["report", "run_1", "--out", file.to_str().unwrap()]);
    assert!(output.status.success() && file.exists() && output.stdout.is_empty());
}
