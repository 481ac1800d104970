//! The key that stands for one stage execution.
//!
//! A stage is rerun exactly when its [`ActionKey`] has no result in the cache.
//!
//! Value                        | In the key | Why
//! -----------------------------|------------|--------------------------------
//! kind and its `VERSION`       | yes        | other code may write other bytes
//! parameters, defaults filled  | yes        | so `1e-3` equals `0.001`
//! input digests                | yes        | content, not the stage above
//! seed, for kinds that draw    | yes        | other draws, other bytes
//! stage name, device, executor | no         | where it runs, not what it gives
//! absolute paths, mtimes       | no         | a moved checkout keeps its cache
//!
//! The key hashes readable JSON ([`Fingerprint::hashed`]) that is stored with every result,
//! so that `pipe why` and `pipe compare` explain from the bytes that were hashed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::{
    digest::{ActionKey, Digest},
    record::Reason,
};

/// BLAKE3's derive-key context. The last word changes when the meaning of the JSON does.
const CONTEXT: &str = "pipe 2026-11 stage execution v1";

/// Everything that decides what a stage writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The kind of the stage.
    pub kind: String,
    /// The kind's `VERSION`.
    pub version: u32,
    /// The parameters that decide the bytes, defaults filled in.
    #[serde(serialize_with = "in_order")]
    pub with: Value,
    /// The contents of every input.
    #[serde(rename = "in")]
    pub inputs: BTreeMap<String, Digest>,
    /// The seed, for kinds that draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Fingerprint {
    /// The JSON text that stands for this fingerprint: one line, keys in order.
    pub fn hashed(&self) -> String {
        serde_json::to_string(self).expect("a fingerprint serializes to JSON")
    }

    /// Reads what [`Self::hashed`] wrote, also in an earlier run.
    pub fn parse(hashed: &str) -> Option<Self> {
        serde_json::from_str(hashed).ok()
    }
}

/// The key of the text that [`Fingerprint::hashed`] returned.
pub fn action_key(hashed: &str) -> ActionKey {
    ActionKey::from(blake3::derive_key(CONTEXT, hashed.as_bytes()))
}

/// Writes maps with their keys in order, whatever map type `serde_json` was built with.
fn in_order<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    InOrder(value).serialize(serializer)
}

struct InOrder<'a>(&'a Value);

impl Serialize for InOrder<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Object(map) => {
                let sorted: BTreeMap<_, _> = map.iter().collect();
                serializer.collect_map(sorted.into_iter().map(|(key, value)| (key, InOrder(value))))
            }
            Value::Array(items) => serializer.collect_seq(items.iter().map(InOrder)),
            scalar => scalar.serialize(serializer),
        }
    }
}

/// What is different between an earlier execution and `new`; empty if their keys are equal.
///
/// Reasons carry no places and no run, and name inputs by port: the caller knows more.
pub fn changes(old: &Fingerprint, new: &Fingerprint) -> Vec<Reason> {
    if old.kind != new.kind {
        return vec![Reason::Kind { old: old.kind.clone(), new: new.kind.clone(), since: None }];
    }
    let mut reasons = Vec::new();
    if old.version != new.version {
        reasons.push(Reason::Version { old: old.version, new: new.version, since: None });
    }
    let (before, after) = (leaves(&old.with), leaves(&new.with));
    for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.get(path), after.get(path));
        // By the text that was hashed: 0.0 and -0.0 are equal numbers and two keys.
        let text = |value: Option<&Value>| value.map(|value| serde_json::to_string(&InOrder(value)).ok());
        if text(old) != text(new) && !is_told_below(path, &[&before, &after]) {
            let (old, new) = (old.cloned(), new.cloned());
            reasons.push(Reason::Parameter { path: path.clone(), old, new, place: None, since: None });
        }
    }
    for port in old.inputs.keys().chain(new.inputs.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.inputs.get(port).copied(), new.inputs.get(port).copied());
        if old != new {
            reasons.push(Reason::Input {
                port: port.clone(),
                from: String::new(),
                old,
                new,
                files: None,
                since: None,
            });
        }
    }
    if old.seed != new.seed {
        reasons.push(Reason::Seed { old: old.seed, new: new.seed, place: None, since: None });
    }
    reasons
}

/// The values below a map by dotted path; lists count as one value. A key that has a dot itself, or
/// could be taken for a path, is quoted.
pub(crate) fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() || path.is_empty() => {
                for (key, value) in map {
                    let is_plain = !key.is_empty() && !key.contains(['.', '"']);
                    let key = if is_plain { key.clone() } else { Value::from(key.as_str()).to_string() };
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, found);
                }
            }
            leaf => {
                found.insert(path.to_owned(), leaf.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}

/// Whether the maps at `path` differ in nothing but what they hold: an empty one beside one whose values
/// have paths of their own.
pub(crate) fn is_told_below(path: &str, sides: &[&BTreeMap<String, Value>]) -> bool {
    let below = format!("{path}.");
    sides.iter().all(|leaves| match leaves.get(path) {
        Some(value) => value.as_object().is_some_and(serde_json::Map::is_empty),
        None => leaves.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn fingerprint(with: Value) -> Fingerprint {
        Fingerprint { kind: "lora".into(), version: 1, with, inputs: BTreeMap::new(), seed: Some(7) }
    }

    #[test]
    fn the_key_of_a_known_text_never_moves() {
        let hashed = fingerprint(json!({"rank": 8, "lr": 1e-3})).hashed();
        assert_eq!(hashed, r#"{"kind":"lora","version":1,"with":{"lr":0.001,"rank":8},"in":{},"seed":7}"#);
        insta::assert_snapshot!(action_key(&hashed), @"a5eb123b9d6ff885e0f67d472a57f3ac6271a51d27364d65e9b0031429858fd3");
    }

    #[test]
    fn changes_name_each_value_that_differs_and_nothing_else() {
        let old = fingerprint(json!({"rank": 8, "alpha": 1, "targets": ["q", "v"], "train": {"lr": 0.1}}));
        let mut new =
            fingerprint(json!({"rank": 16, "targets": ["q"], "train": {"lr": 0.1}, "dropout": 0.5}));
        new.seed = Some(8);
        let told: Vec<String> = changes(&old, &new).iter().map(|reason| format!("{reason:?}")).collect();
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told[0].contains("alpha") && told[0].contains("new: None"));
        assert!(told[1].contains("dropout") && told[1].contains("old: None"));
        assert!(told[2].contains("rank") && told[3].contains("targets") && told[4].contains("Seed"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            "[a-z é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Few values, so that parts are often equal, and names that look like paths and texts.
    fn any_fingerprint() -> impl Strategy<Value = Fingerprint> {
        let key = prop_oneof!["[ab]{0,2}", r#"[a.":{},]{0,3}"#];
        let value = prop_oneof![
            Just(Value::from(0.0)),
            Just(Value::from(-0.0)),
            Just(Value::from(0)),
            Just(Value::Null),
            any_value(),
            prop::collection::btree_map(key.clone(), (0..2u8).prop_map(Value::from), 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ];
        let with = prop::collection::btree_map(key, value, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()));
        let inputs = prop::collection::btree_map("[ab]", 0..3u8, 0..3).prop_map(|map| {
            map.into_iter().map(|(port, number)| (port, Digest::from([number; 32]))).collect()
        });
        let seed = prop::option::of(0..3u64);
        ("[ab]", 1..3u32, with, inputs, seed).prop_map(|(kind, version, with, inputs, seed)| Fingerprint {
            kind,
            version,
            with,
            inputs,
            seed,
        })
    }

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_nothing_differs(a in any_fingerprint(), b in any_fingerprint(), part in 0..6) {
            // One part of `a` is put in place of that of `b`, or all but one.
            let (a, b) = match part {
                0 => (Fingerprint { kind: b.kind, ..a.clone() }, a),
                1 => (Fingerprint { version: b.version, ..a.clone() }, a),
                2 => (Fingerprint { with: b.with, ..a.clone() }, a),
                3 => (Fingerprint { inputs: b.inputs, ..a.clone() }, a),
                4 => (Fingerprint { seed: b.seed, ..a.clone() }, a),
                _ => (a, b),
            };
            let same = action_key(&a.hashed()) == action_key(&b.hashed());
            prop_assert_eq!(same, a.hashed() == b.hashed());
            prop_assert_eq!(same, changes(&a, &b).is_empty(), "{} {}", a.hashed(), b.hashed());
            // Equal parts are equal keys and the other way round; -0.0 alone equals a number that it is not.
            prop_assert!(same == (a == b) || a.hashed().contains("-0.0") || b.hashed().contains("-0.0"));
            prop_assert_eq!(Fingerprint::parse(&a.hashed()).expect("reads back"), a);
        }

        #[test]
        fn the_order_in_which_keys_were_written_is_not_in_the_key(
            entries in prop::collection::btree_map("[a-z]{1,3}", any_value(), 0..6),
            turn in 0usize..6,
        ) {
            let mut turned: Vec<_> = entries.clone().into_iter().collect();
            let middle = turn.min(turned.len());
            turned.rotate_left(middle);
            turned.reverse();
            let hashed = |entries: Vec<(String, Value)>| {
                fingerprint(Value::Object(entries.into_iter().collect())).hashed()
            };
            prop_assert_eq!(hashed(entries.into_iter().collect()), hashed(turned));
        }
    }
}
