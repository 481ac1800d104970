//! "did you mean …?"

use std::cell::Cell;

use pipe_stages::nearest;

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
        let affordable = names.into_iter().take_while(|_| {
            let left = self.budget.get().checked_sub(1);
            self.budget.set(left.unwrap_or(0));
            left.is_some()
        });
        nearest(wrong, affordable)
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
