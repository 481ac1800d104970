//! Several seeds of one configuration as one: mean and spread, and whether two differ by more.

use std::collections::BTreeSet;

use pipe_stages::contract::Better;
use serde::Serialize;
use serde_json::Value;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{
    LoadedRun,
    compare::{Difference, Verdict, What},
};
use crate::names::RunId;

/// Runs that are equal but for their seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// A letter: `A` is what the others are measured against.
    pub name: String,
    /// Its runs.
    pub runs: Vec<RunId>,
    /// The seed of each run's pipeline.
    pub seeds: Vec<u64>,
    /// Their places among all runs.
    #[serde(skip)]
    pub places: Vec<usize>,
}

/// A final metric over the seeds of each group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRow {
    /// The stage, as the first run that has it calls it.
    pub stage: String,
    /// Dotted path after the stage.
    pub name: String,
    /// Which direction is an improvement.
    pub better: Better,
    /// Its values in each group.
    pub spreads: Vec<Option<Spread>>,
    /// Each mean less the first group's.
    pub contrasts: Vec<Option<Contrast>>,
}

/// How a metric lies over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// How many executions; one that several runs share counts once.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1); nothing of one alone.
    pub sd: Option<f64>,
}

/// The mean of one group less that of another, by Welch's t-test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Contrast {
    /// The difference of the means.
    pub difference: f64,
    /// Its 95 % interval, where both groups have two seeds and one of them spreads.
    pub interval: Option<(f64, f64)>,
    /// The chance of a difference as large as this, or larger, if there were none.
    pub p: Option<f64>,
    /// What it means: [`Verdict::Unknown`] where it is not more than chance may give.
    pub verdict: Verdict,
}

/// The runs by configuration, or nothing if no two runs differ in their seeds alone.
pub(super) fn groups(runs: &[LoadedRun], differences: &[Difference]) -> Vec<Group> {
    let decides = |difference: &&Difference| {
        let exists = |value: &Option<Value>| value.is_some();
        match difference.what {
            // Another name is no other configuration; a stage that is missing is.
            What::Stage => !difference.values.iter().all(exists),
            What::Kind | What::KindVersion | What::Parameter | What::Input | What::Source => true,
            _ => false,
        }
    };
    let configuration = |at: usize| -> Vec<Option<&Value>> {
        differences.iter().filter(decides).map(|difference| difference.values[at].as_ref()).collect()
    };
    let seeds = |at: usize| -> Vec<Option<&Value>> {
        let of_seeds = differences.iter().filter(|one| matches!(one.what, What::Seed | What::StageSeed));
        of_seeds.map(|difference| difference.values[at].as_ref()).collect()
    };
    let mut places: Vec<Vec<usize>> = Vec::new();
    for at in 0..runs.len() {
        match places.iter_mut().find(|group| configuration(group[0]) == configuration(at)) {
            Some(group) => group.push(at),
            None => places.push(vec![at]),
        }
    }
    if !places.iter().any(|group| group.iter().any(|at| seeds(*at) != seeds(group[0]))) {
        return Vec::new();
    }
    let group = |(index, places): (usize, Vec<usize>)| Group {
        name: letters(index),
        runs: places.iter().map(|at| runs[*at].info.run).collect(),
        seeds: places.iter().map(|at| runs[*at].info.seed).collect(),
        places,
    };
    places.into_iter().enumerate().map(group).collect()
}

/// `A` … `Z`, `AA`, `AB` …
fn letters(index: usize) -> String {
    let last = char::from(b'A' + (index % 26) as u8);
    if index < 26 { last.into() } else { format!("{}{last}", letters(index / 26 - 1)) }
}

impl GroupRow {
    /// A metric whose value in each run came from the execution in `executions`.
    pub(super) fn new(
        stage: &str,
        name: &str,
        better: Better,
        groups: &[Group],
        values: &[Option<f64>],
        executions: &[Option<&str>],
    ) -> Self {
        let spread = |group: &Group| {
            let mut seen = BTreeSet::new();
            let own = group.places.iter().filter(|at| seen.insert(executions[**at]));
            Spread::of(&own.filter_map(|at| values[*at]).collect::<Vec<_>>())
        };
        let spreads: Vec<Option<Spread>> = groups.iter().map(spread).collect();
        let contrast = |spread: &Option<Spread>| Some(Contrast::new(better, spreads[0]?, (*spread)?));
        let contrasts = spreads.iter().map(contrast).collect();
        Self { stage: stage.into(), name: name.into(), better, spreads, contrasts }
    }
}

impl Spread {
    /// How `values` lie; nothing of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let (n, first) = (values.len(), *values.first()?);
        // Equal values have themselves as mean, and no deviation by rounding.
        let mean = first + values.iter().map(|value| value - first).sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { n, mean, sd })
    }
}

impl Contrast {
    /// `new` against `old`, spreads unequal (B. L. Welch, Biometrika 34, 1947, 28–35).
    pub fn new(better: Better, old: Spread, new: Spread) -> Self {
        let difference = new.mean - old.mean;
        let share = |spread: Spread| spread.sd.map(|sd| sd * sd / spread.n as f64);
        let tested = share(old).zip(share(new)).filter(|(a, b)| a + b > 0.0).and_then(|(a, b)| {
            let error = (a + b).sqrt();
            let per_freedom = a * a / (old.n - 1) as f64 + b * b / (new.n - 1) as f64;
            let t = StudentsT::new(0.0, 1.0, (a + b).powi(2) / per_freedom).ok()?;
            let reach = t.inverse_cdf(0.975) * error;
            let p = 2.0 * t.cdf(-(difference / error).abs());
            Some(((difference - reach, difference + reach), p.min(1.0)))
        });
        let verdict = match (better, tested) {
            _ if difference == 0.0 => Verdict::Equal,
            (_, Some((_, p))) if p < 0.05 => match better {
                Better::Neither => Verdict::Changed,
                Better::Higher if difference > 0.0 => Verdict::Better,
                Better::Lower if difference < 0.0 => Verdict::Better,
                _ => Verdict::Worse,
            },
            _ => Verdict::Unknown,
        };
        Self { difference, interval: tested.map(|it| it.0), p: tested.map(|it| it.1), verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_no_deviation_by_rounding() {
        let equal = Spread::of(&[0.1; 3]).unwrap();
        assert_eq!((equal.mean, equal.sd), (0.1, Some(0.0)));
        assert_eq!(Contrast::new(Better::Higher, equal, equal).p, None);
        assert_eq!(Spread::of(&[]), None);
    }
}
