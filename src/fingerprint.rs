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

use serde::{Deserialize, Serialize};
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
        let ordered = Self { with: in_order(&self.with), ..self.clone() };
        serde_json::to_string(&ordered).expect("a fingerprint serializes to JSON")
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

/// Maps with their keys in order, whatever map type `serde_json` was built with.
fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> =
                map.iter().map(|(key, value)| (key.clone(), in_order(value))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(in_order).collect()),
        scalar => scalar.clone(),
    }
}

/// What is different between an earlier execution and `new`; empty if their keys are equal.
///
/// Reasons carry no places and name inputs by port: the caller knows where things are written.
pub fn changes(old: &Fingerprint, new: &Fingerprint) -> Vec<Reason> {
    if old.kind != new.kind {
        return vec![Reason::Kind { old: old.kind.clone(), new: new.kind.clone() }];
    }
    let mut reasons = Vec::new();
    if old.version != new.version {
        reasons.push(Reason::Version { old: old.version, new: new.version });
    }
    let (before, after) = (leaves(&old.with), leaves(&new.with));
    for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (before.get(path), after.get(path));
        if old != new {
            let (old, new) = (old.cloned(), new.cloned());
            reasons.push(Reason::Parameter { path: path.clone(), old, new, place: None });
        }
    }
    for port in old.inputs.keys().chain(new.inputs.keys()).collect::<BTreeSet<_>>() {
        let (old, new) = (old.inputs.get(port).copied(), new.inputs.get(port).copied());
        if old != new {
            reasons.push(Reason::Input { port: port.clone(), from: String::new(), old, new });
        }
    }
    if old.seed != new.seed {
        reasons.push(Reason::Seed { old: old.seed, new: new.seed });
    }
    reasons
}

/// The values below a map by dotted path; lists count as one value.
pub(crate) fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() || path.is_empty() => {
                for (key, value) in map {
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

    proptest! {
        #[test]
        fn keys_are_equal_exactly_when_nothing_differs(
            a in prop::collection::btree_map("[a-z]{1,3}", any_value(), 0..4),
            b in prop::collection::btree_map("[a-z]{1,3}", any_value(), 0..4),
        ) {
            let (a, b) = (
                fingerprint(Value::Object(a.into_iter().collect())),
                fingerprint(Value::Object(b.into_iter().collect())),
            );
            let same = action_key(&a.hashed()) == action_key(&b.hashed());
            prop_assert_eq!(same, changes(&a, &b).is_empty());
            prop_assert_eq!(Fingerprint::parse(&a.hashed()).expect("reads back"), a);
        }
    }
}
