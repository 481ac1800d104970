//! Whether one method is better than another on the same items, or just came out so.
//!
//! Figure | How
//! -------|-----------------------------------------------------------------------------
//! p      | `McNemar`'s exact test on the items that only one of the two has right
//! 95 %   | paired bootstrap of the difference of accuracies, percentiles, seeded
//! verdict| Holm's step-down over all pairs that were compared, at 5 %
//!
//! Sources are with the functions in [`pipe_stages::evaluation`]; S. Holm, Scandinavian Journal of
//! Statistics 6, 1979, 65–70.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipe_stages::{
    data::Prediction,
    evaluation::{Paired, bootstrap_interval, decide},
};
use serde::Serialize;

use super::{
    LoadedRun, RunsError,
    methods::{Method, is_measured, methods},
    pairing::pair_stages,
    test_set::what_differs,
};
use crate::digest::Digest;

/// The chance of a false alarm that is taken, over all pairs together.
pub(super) const LEVEL: f64 = 0.05;

/// How differences are drawn again.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap {
    /// How many times.
    pub resamples: usize,
    /// The seed of the draws.
    pub seed: u64,
}

/// Two methods on the same items.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// The stage that measured them, as the first run calls it.
    pub stage: String,
    /// The method, where it is the same in two runs; empty between methods of one run.
    pub method: String,
    /// What is compared with: a run, or a method of the run.
    pub a: String,
    /// What is compared.
    pub b: String,
    /// How many items both predicted.
    pub items: u64,
    /// Items that both have right.
    pub both_right: u64,
    /// Items that only `a` has right.
    pub only_a: u64,
    /// Items that only `b` has right.
    pub only_b: u64,
    /// Items that both have wrong.
    pub both_wrong: u64,
    /// The accuracy of `b` less that of `a`.
    pub difference: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// How often the difference was drawn again for the interval.
    pub resamples: usize,
    /// The seed of these draws.
    pub seed: u64,
    /// `McNemar`'s exact p.
    pub mcnemar_exact_p: f64,
    /// The same, corrected for how many pairs were compared at once.
    pub holm_p: f64,
    /// Which of the two is better, where that is shown.
    pub better: Option<Side>,
}

/// One of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Pairs of methods that can be set against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Contests {
    list: Vec<Contest>,
}

#[derive(Debug, Clone, PartialEq)]
struct Contest {
    stage: String,
    method: String,
    a: Contestant,
    b: Contestant,
    /// The input that differs if the two turn out to be of different items.
    differs: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Contestant {
    label: String,
    method: Method,
}

impl Contests {
    /// Every method that has other predictions in a run than in the first of `runs`.
    pub fn of_runs(runs: &[LoadedRun]) -> Self {
        let mut list = Vec::new();
        for pair in pair_stages(runs) {
            let of = |at: usize| {
                let taken = |digest| is_measured(&runs[at], digest);
                pair.stages[at].map_or_else(Vec::new, |stage| methods(stage, &taken))
            };
            let first = of(0);
            for at in 1..runs.len() {
                for b in of(at) {
                    let Some(a) = first.iter().find(|a| a.name == b.name && **a != b) else { continue };
                    let stages = pair.stages[0].zip(pair.stages[at]);
                    let differs = stages.and_then(|stages| {
                        what_differs((&runs[0], stages.0), (&runs[at], stages.1), Some(&b.name))
                    });
                    let label = |at: usize| runs[at].info.run.to_string();
                    list.push(Contest {
                        stage: pair.name().into(),
                        method: b.name.clone(),
                        a: Contestant { label: label(0), method: a.clone() },
                        b: Contestant { label: label(at), method: b },
                        differs,
                    });
                }
            }
        }
        Self { list }
    }

    /// The methods of `run`, each with each that the same stage measured.
    pub fn within(run: &LoadedRun) -> Self {
        let mut list = Vec::new();
        for stage in &run.stages {
            let methods = methods(stage, &|digest| is_measured(run, digest));
            for (at, a) in methods.iter().enumerate() {
                for b in &methods[at + 1..] {
                    let one =
                        |method: &Method| Contestant { label: method.name.clone(), method: method.clone() };
                    list.push(Contest {
                        stage: stage.stage.clone(),
                        method: String::new(),
                        a: one(a),
                        b: one(b),
                        differs: None,
                    });
                }
            }
        }
        Self { list }
    }

    /// The predictions that are needed to tell.
    pub fn needs(&self) -> BTreeSet<Digest> {
        let digests = self.list.iter().flat_map(|contest| [&contest.a, &contest.b]);
        digests.map(|one| one.method.predictions).collect()
    }

    /// What comes of each pair whose predictions are all in `predictions`.
    ///
    /// # Errors
    ///
    /// Predictions of different items: comparing them says nothing.
    pub fn decide(
        &self,
        predictions: &BTreeMap<Digest, Vec<Prediction>>,
        bootstrap: Bootstrap,
    ) -> Result<Vec<Evidence>, RunsError> {
        let mut found = Vec::new();
        for contest in &self.list {
            let of = |one: &Contestant| predictions.get(&one.method.predictions);
            let (Some(a), Some(b)) = (of(&contest.a), of(&contest.b)) else { continue };
            let paired = contest.pair(a, b)?;
            found.push(contest.evidence(&paired, bootstrap));
        }
        correct(&mut found);
        Ok(found)
    }
}

impl Contest {
    fn pair(&self, a: &[Prediction], b: &[Prediction]) -> Result<Paired, RunsError> {
        let is_right = |row: &Prediction, threshold| decide(row, threshold) == row.label;
        let (over_a, over_b) = (self.a.method.threshold, self.b.method.threshold);
        let mut paired = Paired::default();
        let same_order = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.id == b.id);
        let by_id: HashMap<&str, &Prediction> =
            if same_order { HashMap::new() } else { b.iter().map(|row| (row.id.as_str(), row)).collect() };
        for (at, row) in a.iter().enumerate() {
            let other = if same_order { Some(&b[at]) } else { by_id.get(row.id.as_str()).copied() };
            let Some(other) = other else {
                return Err(self.other_items(format!("{} lacks `{}`", self.b.label, row.id)));
            };
            if other.label != row.label {
                let labels = format!("`{}` has label {} and {}", row.id, row.label, other.label);
                return Err(self.other_items(labels));
            }
            paired.add(is_right(row, over_a), is_right(other, over_b));
        }
        if b.len() > a.len() {
            let known: BTreeSet<&str> = a.iter().map(|row| row.id.as_str()).collect();
            let extra = b.iter().find(|row| !known.contains(row.id.as_str()));
            let id = extra.map_or("", |row| row.id.as_str());
            return Err(self.other_items(format!("{} lacks `{id}`", self.a.label)));
        }
        Ok(paired)
    }

    fn other_items(&self, what: String) -> RunsError {
        let differs = self.differs.clone().unwrap_or_else(|| "what they were tested on differs".into());
        RunsError::OtherTestSet {
            a: self.a.label.clone(),
            b: self.b.label.clone(),
            what,
            help: format!("{differs}; `--any-test-set` puts their figures side by side all the same"),
        }
    }

    fn evidence(&self, paired: &Paired, bootstrap: Bootstrap) -> Evidence {
        let interval = bootstrap_interval(paired, bootstrap.resamples, bootstrap.seed);
        let (low, high) = interval.unwrap_or_default();
        Evidence {
            stage: self.stage.clone(),
            method: self.method.clone(),
            a: self.a.label.clone(),
            b: self.b.label.clone(),
            items: paired.total(),
            both_right: paired.both_right,
            only_a: paired.a_right_b_wrong,
            only_b: paired.a_wrong_b_right,
            both_wrong: paired.both_wrong,
            difference: paired.accuracy_difference().unwrap_or_default(),
            low,
            high,
            resamples: bootstrap.resamples,
            seed: bootstrap.seed,
            mcnemar_exact_p: paired.p_value(),
            holm_p: 1.0,
            better: None,
        }
    }
}

/// Corrects the p-values for being several, and says which differences are shown.
fn correct(found: &mut [Evidence]) {
    let p: Vec<f64> = found.iter().map(|one| one.mcnemar_exact_p).collect();
    for (one, corrected) in found.iter_mut().zip(holm(&p, p.len())) {
        one.holm_p = corrected;
        one.better = match one.difference {
            _ if corrected >= LEVEL => None,
            difference if difference > 0.0 => Some(Side::B),
            _ => Some(Side::A),
        };
    }
}

/// Holm's p of each of `p`, which are some of `total`: the others count as larger, so that none comes out
/// smaller than it would among all.
pub fn holm(p: &[f64], total: usize) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, at) in order.into_iter().enumerate() {
        least = least.max((p[at] * total.saturating_sub(rank).max(1) as f64).min(1.0));
        corrected[at] = least;
    }
    corrected
}
