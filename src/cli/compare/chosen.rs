//! Which metrics of a comparison are shown.

use crate::{
    cli::{metrics::is_detail, units::counted},
    names::base,
    runs::compare::{Comparison, MetricRow, Verdict},
};

/// The metrics to be shown, and how many are not.
pub(super) struct Chosen<'a> {
    pub rows: Vec<&'a MetricRow>,
    shared: usize,
    equal: usize,
    details: usize,
    /// Of instances of a sweep, whose table has them.
    swept: usize,
}

impl<'a> Chosen<'a> {
    pub fn of(comparison: &'a Comparison, all: bool) -> Self {
        let mut chosen = Chosen { rows: Vec::new(), shared: 0, equal: 0, details: 0, swept: 0 };
        let is_swept =
            |row: &MetricRow| comparison.sweeps.iter().any(|sweep| sweep.stage == base(&row.stage));
        for row in &comparison.metrics {
            match row {
                _ if all => chosen.rows.push(row),
                row if row.shared => chosen.shared += 1,
                row if is_swept(row) => chosen.swept += 1,
                row if is_detail(&row.name) => chosen.details += 1,
                row if row.verdicts.iter().all(|verdict| *verdict == Verdict::Equal) => chosen.equal += 1,
                row => chosen.rows.push(row),
            }
        }
        chosen
    }

    /// How many are not shown.
    pub fn remarks(&self, comparison: &Comparison) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.shared > 0 {
            let who = if comparison.columns.len() == 2 { "both" } else { "all" };
            let equal = counted(self.shared, "metric");
            remarks.push(format!("{equal} equal: executed once, shared by {who}"));
        }
        if self.equal > 0 {
            let though = if comparison.runs.len() > 1 { " though executed again" } else { "" };
            remarks.push(format!("{} equal{though}", counted(self.equal, "metric")));
        }
        if self.details > 0 {
            remarks.push(format!("{} of bins and tensors hidden", counted(self.details, "metric")));
        }
        if self.swept > 0 {
            remarks.push(format!("{} of single stages of a matrix hidden", counted(self.swept, "metric")));
        }
        if let Some(last) = remarks.last_mut() {
            last.push_str("; `--all` shows every one");
        }
        remarks
    }
}
