//! What can be asked of a run by name: its own columns, its metrics, its parameters.

use std::fmt::Write;

use pipe_stages::nearest;

use super::filter::{Filter, Literal, Operator};
use crate::names::split_stage;

/// Something a run has: `seed`, `eval.lora.accuracy`, `lora.rank`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// A column of the run itself, by its place in [`OWN`].
    Own(usize),
    /// A final metric or else a parameter of a stage, as a dotted path after the stage.
    Of {
        /// The stage.
        stage: String,
        /// The metric or parameter.
        name: String,
    },
}

/// Columns of runs themselves, and how SQL asks for them; texts but where numbers are said.
const OWN: [(&str, &str); 15] = [
    ("run", "run.id"),
    (
        "status",
        "CASE WHEN run.id IN (SELECT value FROM json_each(:killed)) THEN 'killed' ELSE run.status END",
    ),
    ("started", "run.started"),
    ("pipeline", "run.pipeline"),
    ("file", "run.file"),
    (PROFILE, "run.profiles"),
    (SET, "run.sets"),
    ("seed", "run.seed"),
    ("ran", "run.ran"),
    ("cached", "run.cached"),
    ("failed", "run.failed"),
    ("seconds", "round((julianday(run.ended) - julianday(run.started)) * 86400, 3)"),
    ("host", "run.host"),
    ("commit", "run.git_commit"),
    ("note", "(SELECT group_concat(text, ' ') FROM note WHERE note.run = run.id)"),
];
/// Of these a run may have several: as SQL, a JSON list, of which each is asked for.
const LISTS: [&str; 3] = [TAG, PROFILE, SET];
const TAG: &str = "tag";
const PROFILE: &str = "profile";
const SET: &str = "set";
/// Of these there are numbers alone; all others of a run itself are texts.
const NUMBERS: [&str; 6] = ["run", "seed", "ran", "cached", "failed", "seconds"];
/// How a run can stand.
const STATES: [&str; 5] = ["running", "done", "failed", "interrupted", "killed"];

impl Column {
    /// The column called `name`, or what could have been meant.
    pub fn parse(name: &str) -> Result<Self, String> {
        let name = if name == "when" { "started" } else { name };
        if name == TAG || name == "tags" {
            return Ok(Column::Own(OWN.len()));
        }
        if let Some(at) = OWN.iter().position(|(own, _)| *own == name) {
            return Ok(Column::Own(at));
        }
        match split_stage(name) {
            (stage, Some(rest)) if !stage.is_empty() && !rest.is_empty() => {
                Ok(Column::Of { stage: stage.into(), name: rest.into() })
            }
            _ => {
                let names = OWN.iter().map(|(own, _)| *own).chain([TAG]);
                let near = nearest(name, names.clone());
                let all = names.collect::<Vec<_>>().join(", ");
                Err(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("columns are {all}, and metrics and parameters such as `eval.accuracy`"),
                })
            }
        }
    }

    /// Its name, for one of the run itself.
    fn own(&self) -> Option<&'static str> {
        match self {
            Column::Own(at) => Some(OWN.get(*at).map_or(TAG, |(name, _)| name)),
            Column::Of { .. } => None,
        }
    }

    /// Whether a run may have several of it.
    pub(super) fn is_list(&self) -> bool {
        self.own().is_some_and(|name| LISTS.contains(&name))
    }

    /// Whether it is a time.
    pub(super) fn is_time(&self) -> bool {
        self.own() == Some("started")
    }

    /// Whether it is a number; `None` where runs may differ in that.
    pub(super) fn is_number(&self) -> Option<bool> {
        self.own().map(|name| NUMBERS.contains(&name))
    }

    /// The values that it can have, where these are few.
    pub(super) fn values(&self) -> Option<&'static [&'static str]> {
        (self.own() == Some("status")).then_some(&STATES[..])
    }

    /// An expression for its value in `run`; `params` takes the texts it speaks of.
    pub(super) fn sql(&self, params: &mut Vec<String>) -> String {
        match self {
            Column::Own(at) => match OWN.get(*at) {
                Some((_, sql)) => (*sql).to_owned(),
                None => "(SELECT json_group_array(name) FROM \
                         (SELECT name FROM tag WHERE tag.run = run.id ORDER BY name))"
                    .into(),
            },
            Column::Of { stage, name } => {
                let (stage, metric) = (bind(params, stage), bind(params, name));
                let path = bind(params, &json_path(name));
                format!(
                    "(SELECT coalesce(
                        (SELECT value FROM final_value WHERE execution = record.execution
                           AND name = (SELECT id FROM metric_name WHERE name = {metric})),
                        (SELECT CASE json_type(params, {path}) WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'
                           ELSE params ->> {path} END FROM definition WHERE id = record.definition))
                      FROM stage_record AS record
                      WHERE record.name = {stage} AND record.run = coalesce(run.repeats, run.id))"
                )
            }
        }
    }
}

/// The dotted path `name` as SQLite's functions for JSON write it.
pub(super) fn json_path(name: &str) -> String {
    name.split('.').fold("$".to_owned(), |mut path, part| {
        write!(path, ".\"{}\"", part.replace('"', "")).expect("a text grows");
        path
    })
}

/// Adds a text and returns what stands for it in SQL.
fn bind(params: &mut Vec<String>, text: &str) -> String {
    params.push(text.to_owned());
    format!(":p{}", params.len() - 1)
}

impl Filter {
    /// Calls `found` with every column that it speaks of.
    pub fn columns<'a>(&'a self, found: &mut impl FnMut(&'a Column)) {
        match self {
            Filter::Any(filters) | Filter::All(filters) => {
                filters.iter().for_each(|filter| filter.columns(found));
            }
            Filter::Not(filter) => filter.columns(found),
            Filter::Compare(column, ..) => found(column),
        }
    }

    /// The condition in SQL; what is not there meets none.
    pub(super) fn sql(&self, params: &mut Vec<String>) -> String {
        let list = |filters: &[Filter], word: &str, params: &mut Vec<String>| {
            let parts: Vec<String> = filters.iter().map(|filter| filter.sql(params)).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Filter::Any(filters) => list(filters, " OR ", params),
            Filter::All(filters) => list(filters, " AND ", params),
            Filter::Not(filter) => format!("NOT {}", filter.sql(params)),
            Filter::Compare(column, operator, literal) if column.is_list() => {
                let list = column.sql(params);
                let one = comparison("value", operator_of_one(*operator), literal, params);
                let exists = format!("EXISTS (SELECT 1 FROM json_each({list}) WHERE {one})");
                if *operator == Operator::Unequal { format!("NOT {exists}") } else { exists }
            }
            Filter::Compare(column, operator, literal) => {
                // `started = 2026-03-01` means that day.
                let is_day = *column == Column::Own(2) && *operator == Operator::Equal;
                let operator = if is_day { Operator::Contains } else { *operator };
                let value = column.sql(params);
                comparison(&value, operator, literal, params)
            }
        }
    }
}

fn operator_of_one(operator: Operator) -> Operator {
    if operator == Operator::Unequal { Operator::Equal } else { operator }
}

fn comparison(value: &str, operator: Operator, literal: &Literal, params: &mut Vec<String>) -> String {
    let word = match operator {
        Operator::Equal => "=",
        Operator::Unequal => "<>",
        Operator::Less => "<",
        Operator::AtMost => "<=",
        Operator::More => ">",
        Operator::AtLeast => ">=",
        Operator::Contains => "",
    };
    match (operator, literal) {
        (Operator::Contains, literal) => {
            let text = match literal {
                Literal::Number(number) => number.to_string(),
                Literal::Text(text) => text.clone(),
            };
            let text = bind(params, &text);
            format!("coalesce(instr(lower({value}), lower({text})) > 0, 0)")
        }
        // A text never equals a number, and is neither more nor less than one. Adding 0 keeps SQLite
        // from comparing as texts.
        (_, Literal::Number(number)) => {
            let number = bind(params, &number.to_string());
            format!(
                "coalesce((SELECT typeof(it) IN ('integer', 'real') AND it {word} CAST({number} AS REAL) FROM (SELECT {value} AS it)), 0)"
            )
        }
        (_, Literal::Text(text)) => {
            let text = bind(params, text);
            format!("coalesce(CAST({value} AS TEXT) {word} {text}, 0)")
        }
    }
}
