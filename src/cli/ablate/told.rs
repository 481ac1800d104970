//! What changes gave, as a table and as JSON.

use pipe_stages::contract::Better;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Variant, values};
use crate::{
    cli::{
        metrics::arrow,
        report::{fitted, table_width},
        table::Columns,
        units::{difference, mean_and_sd, measured, p_value},
    },
    names::RunId,
    runs::{
        ablation::Change,
        evidence::holm,
        seeds::{Contrast, Spread},
    },
};

/// What came of a variant, one a seed.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Outcome {
    /// The metric; `None` where it is undefined or was not had.
    pub values: Vec<Option<f64>>,
    /// The runs that were made for it.
    pub runs: Vec<RunId>,
    /// Why there is no value.
    pub problem: Option<String>,
}

impl Outcome {
    fn spread(&self) -> Option<Spread> {
        Spread::of(&self.values.iter().copied().collect::<Option<Vec<_>>>()?)
    }
}

/// What a change gives.
#[derive(Debug, Clone, Copy, Serialize)]
struct Effect {
    #[serde(flatten)]
    contrast: Contrast,
    /// Holm's p, for all effects that can be tested.
    holm_p: Option<f64>,
}

impl From<Contrast> for Effect {
    fn from(contrast: Contrast) -> Self {
        Self { contrast, holm_p: None }
    }
}

/// What came out.
pub(super) struct Ablation<'a> {
    pub runs: [RunId; 2],
    pub metric: &'a str,
    pub better: Better,
    /// What the runs had, if that can be compared.
    pub recorded: Option<[Option<f64>; 2]>,
    pub changes: &'a [Change],
    /// Of the variants.
    pub outcomes: Vec<Outcome>,
}

impl Ablation<'_> {
    /// Both runs.
    fn ends(&self) -> [&Outcome; 2] {
        [&self.outcomes[0], &self.outcomes[1]]
    }

    /// Each change with what came of it made alone, and left out alone.
    fn rows(&self) -> impl Iterator<Item = (&Change, [&Outcome; 2])> {
        let pairs = self.outcomes[2..].chunks_exact(2).map(|pair| [&pair[0], &pair[1]]);
        self.changes.iter().zip(pairs)
    }

    /// What a step from `old` to `new` gives.
    fn effect(&self, old: &Outcome, new: &Outcome) -> Option<Contrast> {
        Some(Contrast::new(self.better, old.spread()?, new.spread()?))
    }

    /// What each change gives, made alone in the first run and made last in the second.
    fn effects(&self) -> Vec<[Option<Effect>; 2]> {
        let [first, second] = self.ends();
        let alone = |new| self.effect(first, new).map(Effect::from);
        let last = |old| self.effect(old, second).map(Effect::from);
        let mut effects: Vec<_> =
            self.rows().map(|(_, [made, undone])| [alone(made), last(undone)]).collect();
        let tested = || effects.iter().flatten().flatten().filter_map(|effect| effect.contrast.p);
        let p: Vec<f64> = tested().collect();
        let of_tests = effects.iter_mut().flatten().flatten().filter(|effect| effect.contrast.p.is_some());
        for (effect, corrected) in of_tests.zip(holm(&p, p.len())) {
            effect.holm_p = Some(corrected);
        }
        effects
    }

    pub fn json(&self) -> Value {
        let [first, second] = self.ends();
        let changes = self.rows().zip(self.effects()).map(|((change, [made, undone]), effects)| {
            let mut document = json!(change);
            document["made"] = json!({"outcome": made, "effect": effects[0]});
            document["undone"] = json!({"outcome": undone, "effect": effects[1]});
            document
        });
        json!({
            "metric": self.metric, "better": self.better, "runs": self.runs,
            "first": first, "second": second, "effect": self.effect(first, second),
            "changes": changes.collect::<Vec<_>>(),
        })
    }

    pub fn text(&self, variants: &[Variant<'_>]) -> String {
        let [first, second] = self.runs;
        let heading = format!("{} {}", self.metric, arrow(self.better));
        let [old, new] = self.ends();
        let mut text = format!(
            "{}: {} in {first}, {} in {second}, {}\n\n",
            heading.trim_end(),
            value(old),
            value(new),
            effect(self.effect(old, new).map(|contrast| (contrast, contrast.p))),
        );
        let (with, without) = (format!("{first} WITH"), format!("{second} WITHOUT"));
        let headings = ["CHANGE", "", with.as_str(), "EFFECT", without.as_str(), "EFFECT"];
        let mut table = Columns::new(&headings).right([2, 3, 4, 5]);
        for ((change, pair), effects) in self.rows().zip(self.effects()) {
            let [made, undone] = effects.map(|found| effect(found.map(|it| (it.contrast, it.holm_p))));
            let [with, without] = pair.map(value);
            table.row(vec![change.name.clone(), values(change), with, made, without, undone]);
        }
        text += &table.text_within(table_width(), 2, &[2, 2]);
        let remarks = self.remarks(variants);
        if !remarks.is_empty() {
            let lines: Vec<String> = remarks.iter().map(|remark| fitted(remark, " ")).collect();
            text.extend(["\n", &lines.join("\n"), "\n"]);
        }
        text
    }

    fn remarks(&self, variants: &[Variant<'_>]) -> Vec<String> {
        let mut remarks: Vec<String> = variants
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(variant, outcome)| {
                Some(format!("{}: {}", variant.title, outcome.problem.as_ref()?))
            })
            .collect();
        let ends = self.runs.iter().zip(self.ends()).zip(self.recorded.into_iter().flatten());
        for ((run, outcome), recorded) in ends.filter(|((_, it), recorded)| it.values != [*recorded]) {
            if outcome.problem.is_none() {
                let had = measured(recorded);
                remarks
                    .push(format!("{run} had {had}: files from outside or versions are not those of then"));
            }
        }
        let [first, second] = self.ends();
        let alone: Option<Vec<f64>> =
            self.effects().into_iter().map(|[made, _]| Some(made?.contrast.difference)).collect();
        if let ([_, _, ..], Some(alone), Some(whole)) = (self.changes, alone, self.effect(first, second)) {
            remarks.push(format!(
                "alone the changes give {} in sum, together {}",
                difference(Some(alone.iter().sum())),
                difference(Some(whole.difference))
            ));
        }
        match first.values.len() {
            1 => remarks
                .push("one seed: how much of this is chance is not known; `--seeds 1,2,3` tells".into()),
            _ => remarks.push(
                "mean ± sd over the seeds; p: Welch's t-test, corrected by Holm for all effects of the table"
                    .into(),
            ),
        }
        remarks
    }
}

/// `0.71250`, or `0.71250 ± 0.00100` of several seeds.
fn value(outcome: &Outcome) -> String {
    outcome.spread().map_or_else(|| "–".into(), |spread| mean_and_sd(spread.mean, spread.sd))
}

/// `+0.02250`, or `+0.02250 (p 0.003)` of several seeds.
fn effect(found: Option<(Contrast, Option<f64>)>) -> String {
    let Some((contrast, p)) = found else { return "–".into() };
    let p = p.map(|p| format!(" (p {})", p_value(p))).unwrap_or_default();
    difference(Some(contrast.difference)) + &p
}
