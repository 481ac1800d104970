//! Published values beside ours: what `run`, `show` and `compare` say of `expect:`.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    table::{Columns, DIM, styled},
    units::{difference, measured},
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

/// A table of all, and where the values were published; nothing if nothing was expected.
pub(super) fn text(expected: &[Expected]) -> String {
    if expected.is_empty() {
        return String::new();
    }
    let mut table = Columns::new(&["EXPECTED", "VALUE", "OURS", ""]).right([1, 2]).coloured(3);
    for one in expected {
        table.row(vec![one.metric.clone(), measured(Some(one.value)), measured(one.ours), verdict(one)]);
    }
    let mut text = table.text();
    for source in sources(expected) {
        writeln!(text, "{}", styled(DIM, &format!("values: {source}"))).expect("a text grows");
    }
    text
}

/// Where values were published, each once.
pub(super) fn sources(expected: &[Expected]) -> BTreeSet<&str> {
    expected.iter().filter_map(|one| one.source.as_deref()).collect()
}
