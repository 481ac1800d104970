//! `pipe runs`: the runs that were recorded, latest first.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Failure, Globals,
    history::{self, json_text},
    report::table_width,
    table::{Columns, DIM, styled},
    targets::quoted,
    units::{ago, duration, measured, shortened},
};
use crate::{
    names::outside_brackets,
    runs::{
        Cell, RunInfo, RunsDb, Selection,
        column::Column,
        filter::{Filter, Literal, Operator},
    },
};

/// List recorded runs, latest first
///
/// Conditions, columns and orders name what a run has: run, status, started, pipeline, file, profile,
/// set, seed, ran, cached, failed, seconds, host, commit, tag, note; a metric (`eval.lora.accuracy`);
/// a parameter (`lora.rank`).
#[derive(Debug, Args)]
#[command(after_help = "\
Conditions: COLUMN and one of =, !=, <, <=, >, >=, ~ (contains), joined by and, or, not, ( )

Examples:
  pipe runs
  pipe runs --limit 5
  pipe runs --where \"eval.lora.accuracy > 0.9 and lora.rank <= 8\" --sort -eval.lora.accuracy
  pipe runs --columns lora.rank,seed,eval.lora.accuracy --csv > ranks.csv
  pipe runs --where \"status = failed and started >= 2026-03-01\"
  pipe runs --all --json | jq -r '.[] | select(.state == \"failed\") | .run'")]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct Runs {
    /// How many to list
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// List all
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// List those that meet a condition
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<String>,
    /// List those with this tag; may be given more than once
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Order by a column, largest first with `-` before it
    #[arg(long, value_name = "[-]COLUMN", allow_hyphen_values = true)]
    sort: Option<String>,
    /// Show these columns
    #[arg(long, value_name = "A,B,…")]
    columns: Vec<String>,
    /// List those that `pipe rm` removed
    #[arg(long)]
    removed: bool,
    /// Write JSON: a list with one object a run
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Write comma-separated values
    #[arg(long)]
    csv: bool,
}

/// Numbers below this are whole in JSON, too, where they are whole: what comes after cannot be told.
const WHOLE: f64 = (1_u64 << 53) as f64;
/// What `--csv` has where no columns are named.
const CSV: [&str; 12] = [
    "status", "started", "pipeline", "profile", "set", "seed", "ran", "cached", "failed", "seconds", "tag",
    "note",
];

impl Runs {
    pub fn run(self, globals: &Globals) -> Result<ExitCode, Failure> {
        let selection = self.selection()?;
        let database = history::open(globals)?;
        let mut named: Vec<&Column> = selection.columns.iter().collect();
        named.extend(selection.sort.iter().map(|(column, _)| column));
        selection.filter.iter().for_each(|filter| filter.columns(&mut |column| named.push(column)));
        database.check_columns(&named)?;
        let text = self.text(globals, &database, selection, Timestamp::now())?;
        history::print(globals, &text)
    }

    fn selection(&self) -> Result<Selection, Failure> {
        let column = |name: &str| {
            let name = name.trim();
            Column::parse(name)
                .map_err(|help| Failure::input(format!("there is no column `{name}`")).help(help))
        };
        let mut filters: Vec<Filter> = Vec::new();
        if let Some(condition) = &self.condition {
            filters.push(Filter::parse(condition)?);
        }
        for tag in &self.tag {
            filters.push(Filter::Compare(column("tag")?, Operator::Equal, Literal::Text(tag.clone())));
        }
        let sort = self.sort.as_deref().map(|name| match name.strip_prefix('-') {
            Some(name) => column(name).map(|column| (column, true)),
            None => column(name).map(|column| (column, false)),
        });
        let columns: Result<Vec<Column>, Failure> = self.names().iter().map(|name| column(name)).collect();
        Ok(Selection {
            filter: (!filters.is_empty()).then_some(Filter::All(filters)),
            sort: sort.transpose()?,
            limit: (!self.all).then_some(self.limit.saturating_add(1)),
            removed: self.removed,
            columns: columns?,
        })
    }

    /// The columns that are named, without `run`, which always comes first.
    fn names(&self) -> Vec<&str> {
        let named = self.columns.iter().flat_map(|list| list.split(outside_brackets(','))).map(str::trim);
        let named: Vec<&str> = named.filter(|name| *name != "run").collect();
        if self.columns.is_empty() && self.csv { CSV.to_vec() } else { named }
    }

    fn text(
        &self,
        globals: &Globals,
        db: &RunsDb,
        selection: Selection,
        now: Timestamp,
    ) -> Result<String, Failure> {
        let is_filtered = selection.filter.is_some() || self.removed;
        let mut runs = db.select(&selection)?;
        let is_cut = !self.all && runs.len() > self.limit;
        if is_cut {
            runs.pop();
        }
        let names = self.names();
        if self.json {
            return Ok(json_text(&runs.iter().map(|run| json(run, &names)).collect::<Value>()));
        }
        if self.csv {
            return Ok(comma_separated(&runs, &names));
        }
        if runs.is_empty() && !is_cut {
            let text =
                if is_filtered { "no run meets this".to_owned() } else { globals.rooted(&db.why_none()?) };
            return Ok(text + "\n");
        }
        let mut text = if runs.is_empty() {
            String::new()
        } else if names.is_empty() {
            overview(&runs, now)
        } else {
            chosen(&runs, &names, now)
        };
        if is_cut {
            let rest = format!("the first {}; `pipe runs --all` lists every run", runs.len());
            text.push_str(&styled(DIM, &globals.rooted(&rest)));
            text.push('\n');
        }
        Ok(text)
    }
}

fn overview(runs: &[(RunInfo, Vec<Cell>)], now: Timestamp) -> String {
    let headings = ["RUN", "STATUS", "WHEN", "PIPELINE", "RAN", "CACHED", "TOOK", "TAGS"];
    let mut table = Columns::new(&headings).right([4, 5, 6]).coloured(1);
    for (run, _) in runs {
        table.row(row(run, now));
    }
    if io::stdout().is_terminal() {
        table.shrink(7, table_width(), 12);
        table.shrink(3, table_width(), 12);
    }
    table.text()
}

fn chosen(runs: &[(RunInfo, Vec<Cell>)], names: &[&str], now: Timestamp) -> String {
    let headings: Vec<String> = names.iter().map(|name| shortened(name, 40)).collect();
    let headings: Vec<&str> = ["RUN"].into_iter().chain(headings.iter().map(String::as_str)).collect();
    let is_number = |at: &usize| runs.iter().any(|(_, cells)| matches!(cells[*at - 1], Cell::Number(_)));
    let right: Vec<usize> = (1..headings.len()).filter(is_number).collect();
    let mut table = Columns::new(&headings).right(right);
    for (run, cells) in runs {
        let cell = |(cell, name): (&Cell, &&str)| match cell {
            Cell::Nothing => "–".into(),
            Cell::Number(number) => measured(Some(*number)),
            Cell::Text(_) if matches!(*name, "started" | "when") => ago(run.started, now),
            Cell::List(list) if list.is_empty() => "–".into(),
            Cell::List(list) => shortened(&list.join(" "), 40),
            Cell::Text(text) => shortened(&text.split_whitespace().collect::<Vec<_>>().join(" "), 40),
        };
        table.row([run.run.to_string()].into_iter().chain(cells.iter().zip(names).map(cell)).collect());
    }
    table.text_within(table_width(), 1, &vec![1; names.len()])
}

fn json((run, cells): &(RunInfo, Vec<Cell>), names: &[&str]) -> Value {
    let mut value = serde_json::to_value(run).expect("a run serializes to JSON");
    if !names.is_empty() {
        let cell = |cell: &Cell| match cell {
            Cell::Nothing => Value::Null,
            Cell::Number(number) if number.fract() == 0.0 && number.abs() < WHOLE => {
                Value::from(*number as i64)
            }
            Cell::Number(number) => Value::from(*number),
            Cell::Text(text) => Value::from(text.as_str()),
            Cell::List(list) => Value::from(list.as_slice()),
        };
        let columns = names.iter().zip(cells).map(|(name, found)| ((*name).to_owned(), cell(found)));
        value["columns"] = Value::Object(columns.collect::<Map<_, _>>());
    }
    value
}

fn comma_separated(runs: &[(RunInfo, Vec<Cell>)], names: &[&str]) -> String {
    let headings = ["run"].into_iter().chain(names.iter().copied()).map(str::to_owned);
    let mut text = history::csv_line(&headings.collect::<Vec<_>>());
    for (run, cells) in runs {
        let cell = |cell: &Cell| match cell {
            Cell::Nothing => String::new(),
            Cell::Number(number) => number.to_string(),
            Cell::Text(text) => text.clone(),
            Cell::List(list) => list.join(" "),
        };
        let cells: Vec<String> = [run.run.to_string()].into_iter().chain(cells.iter().map(cell)).collect();
        text.push_str(&history::csv_line(&cells));
    }
    text
}

/// The pipeline of `run` with what was laid over it, as words of a shell.
pub(super) fn pipeline_words(run: &RunInfo) -> String {
    let over = run.profiles.iter().chain(&run.sets).map(|word| quoted(word));
    [run.pipeline.clone()].into_iter().chain(over).collect::<Vec<_>>().join(" ")
}

fn row(run: &RunInfo, now: Timestamp) -> Vec<String> {
    let mut labels = run.tags.join(" ");
    if let Some(note) = run.notes.last() {
        let space = if labels.is_empty() { "" } else { " " };
        let line = note.text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(labels, "{space}“{}”", shortened(&line, 60)).expect("a text grows");
    }
    vec![
        run.run.to_string(),
        run.state.word().into(),
        ago(run.started, now),
        shortened(&pipeline_words(run), 60),
        run.outcomes.ran.to_string(),
        run.outcomes.cached.to_string(),
        run.seconds.map(duration).unwrap_or_default(),
        labels,
    ]
}
