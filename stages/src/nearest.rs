//! "did you mean …?"

/// Longer ones are compared with nothing.
const LONGEST: usize = 100;

/// The name that is nearest to `wrong`, if one is near; the first of several.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        if let Some(score) = nearness(wrong, name)
            && best.is_none_or(|(before, _)| score > before)
        {
            best = Some((score, name));
        }
    }
    best.map(|(_, name)| name)
}

/// From 0 to 1, how near `name` is to `wrong` by Jaro and Winkler, if it may have been meant.
fn nearness(wrong: &str, name: &str) -> Option<f64> {
    if wrong.len() > LONGEST || name.len() > LONGEST {
        return None;
    }
    let score = strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase());
    let edits = strsim::osa_distance(wrong, name);
    let holds = wrong.len() >= 3 && name.len() >= 3 && (name.contains(wrong) || wrong.contains(name));
    (score > 0.85 || edits <= 1 + wrong.len() / 6 || holds).then_some(score)
}
