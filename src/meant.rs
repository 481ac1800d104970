//! The stages that a person means: `train` is all of a matrix, `train[rank=4]` the part of it where `rank`
//! is 4, `eval*` what begins so.
//!
//! A name that a stage has means that stage alone, whatever its characters mean in a pattern. A value is
//! a pattern, too, and a number equals what is written otherwise: `lr=1e-3` is `lr=0.001`.

use std::{borrow::Cow, cmp::Ordering};

use globset::{Glob, GlobMatcher};
use indexmap::{IndexMap, IndexSet};
use pipe_stages::{
    contract::{AxisValue, InputName},
    nearest,
};

use crate::{
    names::{Instance, base, split_stage},
    units::counted,
};

/// Most names or values that are told; of more, the first.
const TOLD: usize = 8;
/// Most stages that are told by their whole names.
const WHOLE: usize = 4;

/// A pattern of stages' names.
struct Wanted<'p> {
    stage: GlobMatcher,
    at: Vec<(&'p str, &'p str, GlobMatcher)>,
}

impl<'p> Wanted<'p> {
    fn parse(pattern: &'p str) -> Result<Self, globset::Error> {
        let matcher = |text| Ok(Glob::new(text)?.compile_matcher());
        let Some(instance) = Instance::parse(pattern) else {
            return Ok(Self { stage: matcher(pattern)?, at: Vec::new() });
        };
        let at = instance.at.iter().map(|(axis, value)| Ok((*axis, *value, matcher(value)?)));
        Ok(Self { stage: matcher(instance.stage)?, at: at.collect::<Result<_, globset::Error>>()? })
    }

    fn names(&self, stage: &str) -> bool {
        let Some(instance) = Instance::parse(stage) else { return false };
        let is_at = |(axis, wanted, pattern): &(&str, &str, GlobMatcher)| {
            let is_meant =
                |value| pattern.is_match(value) || AxisValue::of(value).is_same(&AxisValue::of(wanted));
            instance.value(axis).is_some_and(is_meant)
        };
        self.stage.is_match(instance.stage) && self.at.iter().all(is_at)
    }
}

/// Those of `names` that `wanted` means, in their order; none if it means nothing.
pub fn meant<'n>(
    wanted: &str,
    names: impl IntoIterator<Item = &'n str> + Clone,
) -> Result<Vec<&'n str>, globset::Error> {
    if let Some(name) = names.clone().into_iter().find(|name| *name == wanted) {
        return Ok(vec![name]);
    }
    let pattern = Wanted::parse(wanted)?;
    Ok(names.into_iter().filter(|name| pattern.names(name)).collect())
}

/// The dotted path `wanted` for each of the stages `names` that it begins with: `train.loss` is
/// `train[rank=4].loss` and others. One that begins with no stage is left as it is.
pub fn paths<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str> + Clone) -> Vec<String> {
    let (stage, rest) = split_stage(wanted);
    match meant(stage, names) {
        Ok(stages) if !stages.is_empty() => {
            stages.into_iter().map(|stage| join(stage, rest).into_owned()).collect()
        }
        _ => vec![wanted.to_owned()],
    }
}

/// The dotted path of `rest` in `stage`.
pub fn join<'a>(stage: &'a str, rest: Option<&str>) -> Cow<'a, str> {
    rest.map_or(Cow::Borrowed(stage), |rest| Cow::Owned(format!("{stage}.{rest}")))
}

/// What may have been meant by `wanted`, which means none of `names`; the names come after the words `all`.
pub fn help<'n>(wanted: &str, all: &str, names: impl IntoIterator<Item = &'n str> + Clone) -> Option<String> {
    let stages: IndexSet<&str> = names.clone().into_iter().map(base).collect();
    if stages.contains(base(wanted)) && base(wanted) != wanted {
        let of_stage = names.clone().into_iter().filter(|name| base(name) == base(wanted));
        return Some(match axes(of_stage) {
            told if told.is_empty() => format!("did you mean `{}`?", base(wanted)),
            told => told,
        });
    }
    if let Some(near) = nearest(base(wanted), stages.iter().copied()) {
        let whole = format!("{near}{}", &wanted[base(wanted).len()..]);
        let is_meant = meant(&whole, names).is_ok_and(|meant| !meant.is_empty());
        return Some(format!("did you mean `{}`?", if is_meant { &whole } else { near }));
    }
    (!stages.is_empty()).then(|| format!("{all} {}", told(&stages)))
}

/// Which of `names` there are, in a few words: `a`, `b`, or `train` has rank 4, 8; lr 0.001, 0.01.
pub fn which(names: &[&str]) -> String {
    if names.len() <= WHOLE {
        let mut names = names.to_vec();
        names.sort_by(|a, b| in_order(a, b));
        return told(&names.into_iter().collect());
    }
    let mut stages: IndexMap<&str, Vec<&str>> = IndexMap::new();
    names.iter().for_each(|name| stages.entry(base(name)).or_default().push(name));
    let words = stages.into_iter().take(TOLD).map(|(stage, names)| match axes(names) {
        told if told.is_empty() => format!("`{stage}`"),
        told => told,
    });
    words.collect::<Vec<_>>().join(", and ")
}

/// `train` has rank 4, 8; lr 0.001, 0.01: the axes of instances of one stage and the values on them;
/// nothing if it has none.
fn axes<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut axes: IndexMap<&str, IndexSet<&str>> = IndexMap::new();
    let mut stage = "";
    for instance in names.into_iter().filter_map(Instance::parse) {
        stage = instance.stage;
        instance.at.iter().for_each(|(axis, value)| {
            axes.entry(axis).or_default().insert(value);
        });
    }
    let words = axes.into_iter().map(|(axis, mut values)| {
        values.sort_by_key(|value| AxisValue::of(value));
        let more = if values.len() > TOLD { ", …" } else { "" };
        format!("{axis} {}{more}", values.into_iter().take(TOLD).collect::<Vec<_>>().join(", "))
    });
    let words = words.collect::<Vec<_>>().join("; ");
    if words.is_empty() { words } else { format!("`{stage}` has {words}") }
}

fn told(names: &IndexSet<&str>) -> String {
    let more = if names.len() > 20 { ", …" } else { "" };
    let names = names.iter().take(20).map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ") + more
}

/// What the file calls the stages `names`, each once: of a matrix, with how many there are.
pub fn of_file<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut stages: IndexMap<&str, (usize, bool)> = IndexMap::new();
    for name in names {
        let (count, is_matrix) = stages.entry(base(name)).or_default();
        *count += 1;
        *is_matrix = base(name) != name;
    }
    let told = |(stage, (count, is_matrix)): (&str, (usize, bool))| {
        if is_matrix { format!("{stage} ({})", counted(count, "combination")) } else { stage.to_owned() }
    };
    stages.into_iter().map(told).collect()
}

/// The order of instances: by the file's name, then by the values of their axes, numbers as numbers.
pub fn in_order(a: &str, b: &str) -> Ordering {
    // Inputs that are gathered are called as instances are.
    InputName::of(a).cmp(&InputName::of(b))
}

/// Short names of `stages` that tell them apart: of instances of one stage the axes on which they
/// differ, else whole names.
pub fn labels<'n>(stages: &[&'n str]) -> Vec<Cow<'n, str>> {
    let whole = || stages.iter().map(|stage| Cow::Borrowed(*stage)).collect();
    let Some(instances) = stages.iter().map(|stage| Instance::parse(stage)).collect::<Option<Vec<_>>>()
    else {
        return whole();
    };
    let Some(first) = instances.first() else { return Vec::new() };
    let differs = |axis: &str| instances.iter().any(|other| other.value(axis) != first.value(axis));
    let label = |instance: &Instance<'n>| {
        let told = instance.at.iter().filter(|(axis, _)| differs(axis));
        told.map(|(axis, value)| format!("{axis}={value}")).collect::<Vec<_>>().join(",")
    };
    let labels: Vec<String> = instances.iter().map(label).collect();
    let is_one = instances.iter().all(|instance| instance.stage == first.stage);
    if !is_one || labels.iter().any(String::is_empty) {
        return whole();
    }
    labels.into_iter().map(Cow::Owned).collect()
}

/// The part of a matrix that `stages` are, as a person would ask for it: what they have in common.
pub fn part(stages: &[&str]) -> String {
    let mut instances = stages.iter().filter_map(|stage| Instance::parse(stage));
    let Some(mut common) = instances.next() else { return String::new() };
    for other in instances {
        common.at.retain(|(axis, value)| other.value(axis) == Some(value));
    }
    common.to_string()
}

/// `stages` as a person would ask for them: the part of a matrix that holds several of it, others by name.
pub fn parts(stages: &[impl AsRef<str>]) -> Vec<String> {
    let mut of_file: IndexMap<&str, Vec<&str>> = IndexMap::new();
    let names = stages.iter().map(AsRef::as_ref);
    names.for_each(|stage| of_file.entry(base(stage)).or_default().push(stage));
    of_file.into_values().map(|stages| part(&stages)).collect()
}

/// A smaller part of a matrix than `stages` are: one value of the first axis on which they differ.
pub fn smaller(stages: &[&str]) -> Option<String> {
    let first = Instance::parse(stages.first()?)?;
    let is_same = |(axis, value): &(&str, &str)| {
        stages.iter().all(|other| Instance::parse(other).is_some_and(|it| it.value(axis) == Some(value)))
    };
    let at = first.at.iter().position(|place| !is_same(place))?;
    Some(Instance { at: first.at[..=at].to_vec(), ..first }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] = [
        "data",
        "train[rank=16,lr=0.001]",
        "train[rank=16,lr=0.01]",
        "train[rank=4,lr=0.001]",
        "train[rank=4,lr=0.01]",
        "eval[rank=4]",
        "eval[rank=16]",
    ];

    #[test]
    fn a_name_means_a_stage_of_the_file_or_a_part_of_it() {
        let means = |wanted: &str| meant(wanted, NAMES).unwrap();
        assert_eq!(means("data"), ["data"]);
        assert_eq!(means("train").len(), 4);
        assert_eq!(means("train[lr=1e-3]"), ["train[rank=16,lr=0.001]", "train[rank=4,lr=0.001]"]);
        assert_eq!(means("*[rank=4]").len(), 3);
        assert_eq!(means("train[rank=4,lr=0.01]"), ["train[rank=4,lr=0.01]"]);
        assert_eq!(means("train[rank=1*,lr=0.01]"), ["train[rank=16,lr=0.01]"]);
        assert_eq!(means("train[seed=4]"), [""; 0]);
        assert_eq!(paths("train[lr=0.01].loss", NAMES).len(), 2);
        assert_eq!(paths("3fa9c0", NAMES), ["3fa9c0"]);
    }

    #[test]
    fn what_was_meant_is_told_in_the_words_of_the_file() {
        let help = |wanted: &str| help(wanted, "its stages are", NAMES).unwrap();
        assert_eq!(help("trian"), "did you mean `train`?");
        assert_eq!(help("trian[rank=4]"), "did you mean `train[rank=4]`?");
        assert_eq!(help("train[rank=5]"), "`train` has rank 4, 16; lr 0.001, 0.01");
        assert_eq!(help("data[rank=5]"), "did you mean `data`?");
        assert_eq!(help("summary"), "its stages are `data`, `train`, `eval`");
        assert_eq!(which(&NAMES[5..]), "`eval[rank=4]`, `eval[rank=16]`");
        assert_eq!(which(&NAMES[1..6]), "`train` has rank 4, 16; lr 0.001, 0.01, and `eval` has rank 4");
        assert_eq!(of_file(NAMES), ["data", "train (4 combinations)", "eval (2 combinations)"]);
    }

    #[test]
    fn labels_say_what_differs() {
        assert_eq!(labels(&NAMES[1..3]), ["lr=0.001", "lr=0.01"]);
        assert_eq!(labels(&NAMES[2..4]), ["rank=16,lr=0.01", "rank=4,lr=0.001"]);
        assert_eq!(labels(&["data", "train[rank=4]"]), ["data", "train[rank=4]"]);
        assert_eq!(labels(&["data"]), ["data"]);
        assert_eq!(part(&NAMES[1..3]), "train[rank=16]");
        assert_eq!(part(&NAMES[1..5]), "train");
        assert_eq!(smaller(&NAMES[1..5]).unwrap(), "train[rank=16]");
        assert_eq!(smaller(&NAMES[..1]), None);
    }
}
