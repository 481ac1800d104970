//! Published values beside ours: what `run`, `show` and `compare` say of `expect:`.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    table::{Columns, DIM, styled},
    units::{counted, difference, measured},
};
use crate::runs::expected::Expected;

/// `reproduced`, `not reproduced (off by -0.02360)`, `not measured`.
pub(super) fn verdict(expected: &Expected) -> String {
    match (expected.reproduced, expected.off_by) {
        (Some(true), _) => "reproduced".into(),
        (Some(false), off_by) => format!("not reproduced (off by {})", difference(off_by)),
        (None, _) => "not measured".into(),
    }
}

/// A table of those that were measured, where these were published, and a line for all others; nothing if
/// nothing was expected.
pub(super) fn text(expected: &[Expected]) -> String {
    let (ours, others): (Vec<_>, Vec<_>) = expected.iter().cloned().partition(|one| one.reproduced.is_some());
    let mut text = String::new();
    if !ours.is_empty() {
        let mut table = Columns::new(&["EXPECTED", "VALUE", "OURS", ""]).right([1, 2]).coloured(3);
        for one in &ours {
            table.row(vec![one.metric.clone(), measured(Some(one.value)), measured(one.ours), verdict(one)]);
        }
        text = table.text();
    }
    for source in sources(&ours) {
        writeln!(text, "{}", styled(DIM, &format!("values: {source}"))).expect("a text grows");
    }
    if let [first, ..] = others.as_slice() {
        let name = if others.len() == 1 { format!(" ({})", first.metric) } else { String::new() };
        let line = format!("{} not measured{name}", counted(others.len(), "expected value"));
        writeln!(text, "{}", styled(DIM, &line)).expect("a text grows");
    }
    text
}

/// Where values were published, each once.
pub(super) fn sources(expected: &[Expected]) -> BTreeSet<&str> {
    expected.iter().filter_map(|one| one.source.as_deref()).collect()
}
