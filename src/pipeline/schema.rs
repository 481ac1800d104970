//! The JSON Schema of pipeline files, for editors.
//!
//! The frame comes from the types below, the `with` of each kind from the kind. A profile is
//! checked more loosely: what it lays over the file need not be whole.

use std::collections::BTreeMap;

use pipe_stages::contract::StageKind;
use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value, json};

use super::overlay::RESERVED;

/// An experiment: stages and how they feed each other.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Pipeline")]
#[allow(dead_code, reason = "only its schema is used")]
struct PipelineFile {
    /// What the experiment is called; the file's name unless given.
    name: Option<String>,
    /// Seed of every stage that draws random numbers and has none of its own; 0 unless given.
    seed: Option<WholeNumber>,
    /// Values that `${vars.NAME}` puts in elsewhere.
    vars: Option<BTreeMap<String, Value>>,
    /// The stages by name.
    stages: Map<String, Value>,
    /// Published values to compare with, by metric (`eval.lora.accuracy`).
    expect: Option<BTreeMap<String, Option<Expectation>>>,
    /// Named changes to all of the above, chosen with `--profile`. Maps merge, scalars and
    /// lists replace, `null` removes, a new `kind` replaces the whole stage.
    profiles: Option<BTreeMap<String, Profile>>,
}

/// Changes to lay over the pipeline.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Profile {
    /// Another name.
    name: Option<String>,
    /// Another seed.
    seed: Option<WholeNumber>,
    /// Other values of variables.
    vars: Option<BTreeMap<String, Value>>,
    /// Changes to stages; `null` removes one.
    stages: Option<BTreeMap<String, Option<BTreeMap<String, Value>>>>,
    /// Other published values; `null` removes one, or all.
    expect: Option<BTreeMap<String, Option<Expectation>>>,
}

/// A published value that a metric should come near.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Expectation {
    /// The published value.
    value: NumberOrVariable,
    /// How far off ours may be and still count as reproduced.
    tolerance: NumberOrVariable,
    /// Where it was published.
    source: Option<String>,
}

/// A number, or a variable.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum NumberOrVariable {
    Number(f64),
    Variable(Variable),
}

/// What a stage may use while it runs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct Resources {
    /// Cores; all for a kind that runs a model, else one, unless given.
    cpus: Option<WholeNumber>,
    /// Memory, such as `4GiB` or `512MB`, or bytes.
    memory: Option<Memory>,
    /// GPUs of its own, which `CUDA_VISIBLE_DEVICES` names to it; with `--device cuda` one for a kind that runs
    /// a model, else none, unless given.
    gpus: Option<WholeNumber>,
}

/// A whole number from 0, or a variable.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum WholeNumber {
    Number(u64),
    Variable(Variable),
}

/// An amount of bytes, or a variable.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
enum Memory {
    Bytes(u64),
    Text(String),
}

/// `${vars.NAME}` or `${matrix.AXIS}`
#[derive(JsonSchema)]
#[allow(dead_code, reason = "only its schema is used")]
struct Variable(#[schemars(regex(pattern = r"^\$\{(vars\.[A-Za-z0-9_-]+|matrix\.[a-z0-9_.+-]+)\}$"))] String);

/// The JSON Schema (draft 2020-12) of a pipeline file whose stages are of `kinds`.
pub fn schema(kinds: &[StageKind]) -> Value {
    let mut root = schema_for!(PipelineFile).to_value();
    let mut definitions = root["$defs"].take().as_object().cloned().unwrap_or_default();
    let resources = definition(schema_for!(Resources).to_value(), &mut definitions, "");
    definitions.insert("Resources".into(), resources);
    definitions.insert("Source".into(), source());
    definitions.insert("Axis".into(), axis());
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let mut branches = Vec::new();
    for kind in kinds {
        let own = format!("kind_{}_", kind.name);
        let mut with = definition(kind.schema().to_value(), &mut definitions, &own);
        allow_variables(&mut with);
        let needs_with = with.get("required").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let mut then = json!({ "properties": { "with": with } });
        if needs_with {
            then["required"] = json!(["with"]);
        }
        branches.push(json!({
            "if": { "properties": { "kind": { "const": kind.name } }, "required": ["kind"] },
            "then": then,
        }));
    }
    for (name, definition) in &mut definitions {
        if name.starts_with("kind_") {
            allow_variables(definition);
        }
    }
    let summaries: Vec<Value> =
        kinds.iter().map(|kind| json!({ "const": kind.name, "description": kind.summary })).collect();
    let mut stage = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind"],
        "properties": {
            "kind": { "description": "What the stage does.", "enum": names },
            "matrix": {
                "description": "Axes and their values: there is a stage for each combination, called `lora[rank=8]`, in which `${matrix.rank}` is its value. Stages that take from it have the same axes, unless they `gather`.",
                "type": ["object", "null"],
                "propertyNames": { "pattern": "^[a-z][a-z0-9_]*$" },
                "additionalProperties": { "$ref": "#/$defs/Axis" },
            },
            "in": {
                "description": "Where each input comes from.",
                "type": ["object", "null"],
                "additionalProperties": { "$ref": "#/$defs/Source" },
            },
            "with": { "description": "The parameters of the kind; `pipe stages KIND` explains them.", "type": ["object", "null"] },
            "seed": { "description": "The stage's own seed, for kinds that draw.", "$ref": "#/$defs/WholeNumber" },
            "resources": { "description": "What the stage may use.", "$ref": "#/$defs/Resources" },
            "retry": { "description": "How often the stage is started again after it failed; 0 unless given.", "$ref": "#/$defs/WholeNumber" },
            "timeout": { "description": "How long each attempt may take, such as `90s`, `30m` or `1h 30m`.", "type": "string", "minLength": 1 },
        },
    });
    if !summaries.is_empty() {
        stage["properties"]["kind"] = json!({ "description": "What the stage does.", "oneOf": summaries });
        stage["allOf"] = Value::Array(branches);
    }
    definitions.insert("Stage".into(), stage);
    root["properties"]["stages"] = json!({
        "description": "The stages by name.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": "^[a-z][a-z0-9_]*$", "not": { "enum": RESERVED } },
        "additionalProperties": { "$ref": "#/$defs/Stage" },
    });
    root["$defs"] = Value::Object(definitions);
    root
}

fn axis() -> Value {
    json!({
        "description": "The values of an axis: a list, or a map of names and values where a value is longer than a word.",
        "anyOf": [
            { "type": "array", "minItems": 1, "uniqueItems": true, "items": { "type": ["string", "number", "boolean"] } },
            { "type": "object", "minProperties": 1 },
            { "$ref": "#/$defs/Variable" },
        ],
    })
}

fn source() -> Value {
    let outside = |key: &str, doc: &str| {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": [key],
            "properties": { key: { "type": "string", "minLength": 1, "description": doc } },
        })
    };
    json!({
        "description": "`STAGE`, `STAGE.OUTPUT`, or something from outside, relative to the project root.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            outside("file", "A file."),
            outside("dir", "A folder."),
            outside("glob", "Files that match a pattern such as `reviews/*.jsonl`."),
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["gather"],
                "properties": {
                    "gather": { "type": "string", "minLength": 1, "description": "A stage with a matrix, or one of its outputs: all of them at once, as inputs `NAME[rank=8]`." },
                    "over": { "description": "The axes that are gathered, all unless given; the stage has the others.", "type": ["string", "array"], "items": { "type": "string" } },
                },
            },
        ],
    })
}

/// Moves the definitions of `schema` into `all`, their names beginning with `own`.
fn definition(mut schema: Value, all: &mut Map<String, Value>, own: &str) -> Value {
    let inner = schema.as_object_mut().and_then(|map| {
        map.remove("$schema");
        map.remove("title");
        map.remove("$defs")
    });
    if !own.is_empty() {
        rename_references(&mut schema, own);
    }
    for (name, mut inner) in inner.as_ref().and_then(Value::as_object).cloned().unwrap_or_default() {
        if !own.is_empty() {
            rename_references(&mut inner, own);
        }
        all.insert(format!("{own}{name}"), inner);
    }
    schema
}

fn rename_references(value: &mut Value, own: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/$defs/{own}{name}");
            }
            map.values_mut().for_each(|value| rename_references(value, own));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, own)),
        _ => {}
    }
}

/// Lets every parameter be a text with a variable instead of its own type.
fn allow_variables(schema: &mut Value) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for property in properties.values_mut() {
        let Value::Object(map) = property else { continue };
        let mut outer = Map::new();
        for kept in ["description", "default"] {
            if let Some(value) = map.remove(kept) {
                outer.insert(kept.into(), value);
            }
        }
        let own = std::mem::take(property);
        outer.insert("anyOf".into(), json!([own, { "type": "string", "pattern": r"\$\{(vars|matrix)\." }]));
        *property = Value::Object(outer);
    }
}
