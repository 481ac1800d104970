//! "did you mean …?"

use std::cell::Cell;

/// Finds near names, for a bounded number of comparisons, so that ten thousand wrong names
/// among ten thousand right ones stay quick.
#[derive(Debug)]
pub struct Suggestions {
    budget: Cell<usize>,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { budget: Cell::new(500_000) }
    }
}

impl Suggestions {
    /// The name nearest to `wrong`, if one is near.
    pub fn nearest<'a>(&self, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        if wrong.len() > 100 {
            return None;
        }
        let near = |name: &str| {
            let score = strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase());
            let edits = strsim::osa_distance(wrong, name);
            let holds = wrong.len() >= 3 && name.len() >= 3 && (name.contains(wrong) || wrong.contains(name));
            (score > 0.85 || edits <= 1 + wrong.len() / 6 || holds).then_some(score)
        };
        let mut best: Option<(f64, &str)> = None;
        for name in names {
            let Some(left) = self.budget.get().checked_sub(1) else { break };
            self.budget.set(left);
            if name.len() <= 100
                && let Some(score) = near(name)
                && best.is_none_or(|(before, _)| score > before)
            {
                best = Some((score, name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// "did you mean …?" if a name is near, else the list of `names` after `all`.
    pub fn help<'a>(
        &self,
        wrong: &str,
        all: &str,
        names: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        if let Some(name) = self.nearest(wrong, names.clone()) {
            return Some(format!("did you mean `{name}`?"));
        }
        let names: Vec<&str> = names.into_iter().take(21).collect();
        let listed = names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = if names.len() > 20 { ", …" } else { "" };
        (!names.is_empty()).then(|| format!("{all} {listed}{more}"))
    }
}
