//! Kind `evaluate`: what predictions are worth, side by side.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    fs,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    contract::{InputName, MetricDoc, ParamProblem, PortType, Ports, Stage, StageCx, StageError},
    data::{Prediction, read_predictions},
    evaluation::{Bins, Paired, Summary, bins_table, decide, overall_table},
};

/// Compares predictions about the same reviews.
pub struct Evaluate;

/// Parameters of `evaluate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Rising limits of review lengths in tokens, two or more: bins `(0, 256]`, `(256, 512]`, … Reviews
    /// beyond the limits count in the overall figures only.
    pub edges: Vec<u32>,
    /// Call a review positive when its score reaches this, in 0 to 1. Without it the predictions count as
    /// they were made.
    pub threshold: Option<f64>,
    /// Names to show in the tables, by input. The name of inputs that are gathered is for all of them,
    /// each with its values behind: `LoRA (rank=4)`.
    pub titles: BTreeMap<String, String>,
    /// Inputs in the order of the tables; those left out follow by name. The name of inputs that are
    /// gathered is for all of them that are not named, and puts them in the order of their values.
    pub order: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            edges: vec![0, 256, 512, 768, 1024, 1280],
            threshold: None,
            titles: BTreeMap::new(),
            order: Vec::new(),
        }
    }
}

impl Stage for Evaluate {
    type Params = Params;
    const KIND: &'static str = "evaluate";
    const SUMMARY: &'static str = "Measures predictions, overall and by review length, side by side";
    const VERSION: u32 = 1;

    fn ports(_: &Params) -> Ports {
        Ports::new()
            .named_inputs(PortType::Predictions, "predictions of one method; all about the same reviews")
            .output("tables", PortType::Table, "the published tables: all methods, and each by review length")
            .output("metrics", PortType::Json, "every figure, and every pair of methods compared")
    }

    fn check(params: &Params) -> Vec<ParamProblem> {
        let mut problems = Vec::new();
        if Bins::new(params.edges.clone()).is_none() {
            let problem = ParamProblem::new("edges", "wanted two or more limits that rise");
            problems.push(problem.help("such as `[0, 256, 512]`"));
        }
        if params.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
            problems.push(ParamProblem::new("threshold", "wanted a score from 0 to 1"));
        }
        for (i, name) in params.order.iter().enumerate() {
            if params.order[..i].contains(name) {
                problems.push(ParamProblem::new(&format!("order.{i}"), format!("`{name}` is named twice")));
            }
        }
        problems
    }

    fn metrics() -> &'static [MetricDoc] {
        const {
            &[
                MetricDoc::higher("*.accuracy", "share of reviews that the method has right"),
                MetricDoc::higher("*.accuracy_low", "lower end of its 95 % interval (Wilson)"),
                MetricDoc::higher("*.accuracy_high", "upper end of its 95 % interval (Wilson)"),
                MetricDoc::higher("*.precision", "share of positives among reviews called positive"),
                MetricDoc::higher("*.recall", "share of positive reviews that were called positive"),
                MetricDoc::higher("*.f1", "harmonic mean of precision and recall"),
                MetricDoc::higher("*.auc", "area under the ROC curve, ties half"),
                MetricDoc::higher("*.tp", "positive reviews called positive"),
                MetricDoc::lower("*.fp", "negative reviews called positive"),
                MetricDoc::lower("*.fn", "positive reviews called negative"),
                MetricDoc::higher("*.tn", "negative reviews called negative"),
                MetricDoc::neutral("*.count", "reviews"),
                MetricDoc::neutral("*.outside_bins", "reviews whose length is in no bin"),
                MetricDoc::higher("*.bin.*.accuracy", "accuracy on reviews of these lengths"),
                MetricDoc::higher("*.bin.*.precision", "precision on reviews of these lengths"),
                MetricDoc::higher("*.bin.*.recall", "recall on reviews of these lengths"),
                MetricDoc::higher("*.bin.*.tp", "positive reviews of these lengths called positive"),
                MetricDoc::lower("*.bin.*.fp", "negative reviews of these lengths called positive"),
                MetricDoc::lower("*.bin.*.fn", "positive reviews of these lengths called negative"),
                MetricDoc::higher("*.bin.*.tn", "negative reviews of these lengths called negative"),
                MetricDoc::neutral("*.bin.*.count", "reviews of these lengths"),
            ]
        }
    }

    fn run(params: Params, cx: &mut StageCx<'_>) -> Result<(), StageError> {
        let bins = Bins::new(params.edges.clone()).ok_or_else(|| StageError::new("`edges` do not rise"))?;
        let methods = read_methods(&params, cx)?;
        for method in &methods {
            report(cx, method);
        }
        write(cx, "tables", &tables(&methods, &bins, params.threshold))?;
        let figures = figures(&methods, &params);
        let text = serde_json::to_string_pretty(&figures).expect("figures are plain JSON");
        write(cx, "metrics", &format!("{text}\n"))
    }
}

/// One input and what follows from it.
struct Method {
    name: String,
    title: String,
    predictions: Vec<Prediction>,
    summary: Summary,
}

/// The inputs in the order of the tables, the rows of each in the order of the first.
fn read_methods(params: &Params, cx: &StageCx<'_>) -> Result<Vec<Method>, StageError> {
    let inputs = cx.inputs();
    let is_input = |name: &str| inputs.keys().any(|input| InputName::of(input).is_called(name));
    if let Some(name) = params.order.iter().chain(params.titles.keys()).find(|name| !is_input(name)) {
        let names: Vec<_> = inputs.keys().map(|name| format!("`{name}`")).collect();
        return Err(StageError::new(format!("`order` or `titles` names `{name}`, which is no input"))
            .help(format!("the inputs are {}", names.join(", "))));
    }
    let mut names: Vec<&String> = inputs.keys().collect();
    names.sort_by_key(|name| InputName::of(name).place(&params.order));
    let bins = Bins::new(params.edges.clone()).ok_or_else(|| StageError::new("`edges` do not rise"))?;
    let mut methods: Vec<Method> = Vec::new();
    for name in names {
        let mut predictions = read_predictions(&inputs[name])?;
        if predictions.is_empty() {
            return Err(StageError::new(format!("input `{name}` has no predictions")));
        }
        match methods.first() {
            None => {
                rows_by_id(name, &predictions)?;
            }
            Some(first) => predictions = aligned(first, name, predictions)?,
        }
        let summary = Summary::new(&predictions, &bins, params.threshold);
        let title = InputName::of(name).title(|name| params.titles.get(name).map(String::as_str));
        methods.push(Method { name: name.clone(), title, predictions, summary });
    }
    Ok(methods)
}

/// The place of every id; an id that is there twice is an error.
fn rows_by_id<'a>(name: &str, predictions: &'a [Prediction]) -> Result<HashMap<&'a str, usize>, StageError> {
    let mut places = HashMap::with_capacity(predictions.len());
    for (place, row) in predictions.iter().enumerate() {
        if places.insert(row.id.as_str(), place).is_some() {
            return Err(StageError::new(format!("input `{name}` has review `{}` twice", row.id)));
        }
    }
    Ok(places)
}

/// The rows of input `name` in the order of `first`, whose reviews they must be about.
fn aligned(first: &Method, name: &str, rows: Vec<Prediction>) -> Result<Vec<Prediction>, StageError> {
    let differ = |what: String| {
        StageError::new(format!(
            "inputs `{}` and `{name}` are not about the same reviews: {what}",
            first.name
        ))
        .help("feed them from the same tokens")
    };
    let places = rows_by_id(name, &rows)?;
    let mut order = Vec::with_capacity(rows.len());
    for wanted in &first.predictions {
        let place = *places
            .get(wanted.id.as_str())
            .ok_or_else(|| differ(format!("`{name}` lacks `{}`", wanted.id)))?;
        let row = &rows[place];
        if row.label != wanted.label {
            return Err(differ(format!("`{}` has label {} and {}", row.id, wanted.label, row.label)));
        }
        if row.length != wanted.length {
            return Err(differ(format!("`{}` has length {} and {}", row.id, wanted.length, row.length)));
        }
        order.push(place);
    }
    if rows.len() > order.len() {
        let known = rows_by_id(&first.name, &first.predictions)?;
        let extra = rows.iter().find(|row| !known.contains_key(row.id.as_str()));
        let id = extra.map_or("", |row| row.id.as_str());
        return Err(differ(format!("`{}` lacks `{id}`", first.name)));
    }
    let mut rows: Vec<Option<Prediction>> = rows.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|place| rows[place].take()).collect())
}

fn report(cx: &StageCx<'_>, method: &Method) {
    let Method { name, summary, .. } = method;
    let overall = &summary.overall;
    let (low, high) = overall.accuracy_interval().unzip();
    let figures = [
        ("accuracy", overall.accuracy()),
        ("accuracy_low", low),
        ("accuracy_high", high),
        ("precision", overall.precision()),
        ("recall", overall.recall()),
        ("f1", overall.f1()),
        ("auc", summary.auc),
        ("outside_bins", Some(summary.outside_bins as f64)),
    ];
    for (figure, value) in figures {
        cx.optional_metric(&format!("{name}.{figure}"), value);
    }
    let count = |prefix: &str, counts: &crate::evaluation::Counts| {
        for (figure, count) in [
            ("tp", counts.tp),
            ("fp", counts.fp),
            ("fn", counts.fn_),
            ("tn", counts.tn),
            ("count", counts.total()),
        ] {
            cx.metric(&format!("{prefix}.{figure}"), count as f64);
        }
    };
    count(name, overall);
    for bin in &summary.bins {
        let prefix = format!("{name}.bin.{}", bin.name());
        cx.optional_metric(&format!("{prefix}.accuracy"), bin.counts.accuracy());
        cx.optional_metric(&format!("{prefix}.precision"), bin.counts.precision());
        cx.optional_metric(&format!("{prefix}.recall"), bin.counts.recall());
        count(&prefix, &bin.counts);
    }
}

/// The markdown document.
fn tables(methods: &[Method], bins: &Bins, threshold: Option<f64>) -> String {
    let mut text = String::from("# Results\n\n");
    let first = &methods[0];
    if first.predictions.iter().any(|row| row.id.starts_with("synthetic/")) {
        text.push_str("These reviews are synthetic: the figures say nothing of real ones.\n\n");
    }
    let _ =
        writeln!(text, "{} reviews; the interval of the accuracy is Wilson's.\n", first.predictions.len());
    if let Some(threshold) = threshold {
        let _ = writeln!(text, "A review counts as positive when its score reaches {threshold}.\n");
    }
    let rows: Vec<_> = methods
        .iter()
        .map(|method| (method.title.as_str(), method.summary.overall, method.summary.auc))
        .collect();
    text.push_str(&overall_table(&rows));
    text.push_str("\n## By review length\n\nBins are tokens of the whole review, before truncation.");
    if first.summary.outside_bins > 0 {
        let (first_edge, last_edge) = (bins.iter().next(), bins.iter().last());
        if let (Some((above, _)), Some((_, up_to))) = (first_edge, last_edge) {
            let count = first.summary.outside_bins;
            let _ = write!(text, " Reviews of up to {above} or over {up_to} tokens, {count} here,");
            text.push_str(" count in the table above only.");
        }
    }
    text.push('\n');
    for method in methods {
        let _ = write!(text, "\n**{}**\n\n{}", method.title, bins_table(&method.summary.bins));
    }
    text
}

/// Every figure as JSON; keys are in alphabetical order.
fn figures(methods: &[Method], params: &Params) -> Value {
    let of_method = |method: &Method| {
        let (overall, summary) = (&method.summary.overall, &method.summary);
        let bins: Vec<_> = summary
            .bins
            .iter()
            .map(|bin| {
                json!({
                    "bin": bin.interval(),
                    "tp": bin.counts.tp, "fp": bin.counts.fp, "fn": bin.counts.fn_, "tn": bin.counts.tn,
                    "accuracy": bin.counts.accuracy(),
                    "precision": bin.counts.precision(),
                    "recall": bin.counts.recall(),
                })
            })
            .collect();
        json!({
            "tp": overall.tp, "fp": overall.fp, "fn": overall.fn_, "tn": overall.tn,
            "accuracy": overall.accuracy(),
            "accuracy_interval": overall.accuracy_interval(),
            "precision": overall.precision(),
            "recall": overall.recall(),
            "f1": overall.f1(),
            "auc": summary.auc,
            "bins": bins,
            "outside_bins": summary.outside_bins,
        })
    };
    let mut pairs = Vec::new();
    for (index, a) in methods.iter().enumerate() {
        for b in &methods[index + 1..] {
            let mut paired = Paired::default();
            for (row_a, row_b) in a.predictions.iter().zip(&b.predictions) {
                let is_right = |row: &Prediction| decide(row, params.threshold) == row.label;
                paired.add(is_right(row_a), is_right(row_b));
            }
            pairs.push(json!({
                "a": a.name, "b": b.name,
                "a_right_b_wrong": paired.a_right_b_wrong,
                "a_wrong_b_right": paired.a_wrong_b_right,
                "accuracy_difference": paired.accuracy_difference(),
                "mcnemar_exact_p": paired.p_value(),
            }));
        }
    }
    let by_name: BTreeMap<_, _> =
        methods.iter().map(|method| (method.name.clone(), of_method(method))).collect();
    json!({
        "reviews": methods[0].predictions.len(),
        "edges": params.edges,
        "threshold": params.threshold,
        "methods": by_name,
        "pairs": pairs,
    })
}

fn write(cx: &StageCx<'_>, port: &str, text: &str) -> Result<(), StageError> {
    let path = cx.output(port);
    fs::write(path, text).map_err(|err| StageError::io("write", path, err))
}
