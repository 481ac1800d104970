//! Metrics in a CSV file: a metric a line, or a metric a column.
//!
//! No value is lost in silence: what cannot be a number, or would take the place of another
//! value, is an error that names the line.

use std::collections::HashMap;

use super::metrics::{Found, metric};
use crate::contract::{Event, StageError};

/// What a cell may hold where a value is undefined, in any case.
const UNDEFINED: [&str; 5] = ["nan", "na", "n/a", "null", "none"];
/// The largest step: numbers beyond it have neighbours that a double cannot tell apart.
const LAST_STEP: u64 = 1 << 53;

/// Reads the metrics in `text`, the contents of the file that its user calls `file`.
///
/// With columns `name` (or `metric`) and `value`: a metric a line, at the step in column `step` (or
/// `epoch`) if there is one with something in it. Any other table: a metric a column, at the steps in
/// column `step`; or at those in `epoch`, if they are whole numbers and tell all values apart; or, if
/// there is more than one line, at the number of the line. A column of texts is left out, unless it tells
/// values of a step apart, as `train` and `val` do: then it begins the names, `train.loss`. One without a
/// heading is left out. Headings are told by their letters alone, large or small.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Event>, StageError> {
    let no_csv = |err: csv::Error| {
        StageError::new(format!("the metrics in `{file}` are neither JSON nor CSV")).because(err)
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let headings = reader.headers().map_err(no_csv)?.iter().map(str::to_owned).collect();
    let lines = reader.records().collect::<Result<_, _>>().map_err(no_csv)?;
    let table = Table { file, text, headings, lines };
    match (table.column(&["name", "metric"]), table.column(&["value"])) {
        (Some(names), Some(values)) => table.by_line(names, values),
        _ => table.by_column(),
    }
}

struct Table<'a> {
    file: &'a str,
    text: &'a str,
    headings: Vec<String>,
    lines: Vec<csv::StringRecord>,
}

/// What a cell holds.
#[derive(Clone, Copy, PartialEq)]
enum Cell<'a> {
    Nothing,
    Undefined,
    Number(f64),
    Text(&'a str),
}

impl<'a> Cell<'a> {
    fn of(text: &'a str) -> Self {
        match text.parse() {
            _ if text.is_empty() => Cell::Nothing,
            _ if UNDEFINED.iter().any(|word| text.eq_ignore_ascii_case(word)) => Cell::Undefined,
            Ok(number) => Cell::Number(number),
            Err(_) => Cell::Text(text),
        }
    }

    fn step(self) -> Option<u64> {
        match self {
            Cell::Number(step) if step.fract() == 0.0 && (0.0..=LAST_STEP as f64).contains(&step) => {
                Some(step as u64)
            }
            _ => None,
        }
    }
}

/// Two lines, counted from 1, that give the same metric at the same step.
struct Clash {
    lines: [u64; 2],
    metric: String,
    step: Option<u64>,
}

impl Table<'_> {
    /// The first column called by the first of `names` that any is called by.
    fn column(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.headings.iter().position(|it| it.eq_ignore_ascii_case(name)))
    }

    fn cell(&self, line: usize, column: usize) -> Cell<'_> {
        Cell::of(&self.lines[line][column])
    }

    fn by_line(&self, names: usize, values: usize) -> Result<Vec<Event>, StageError> {
        let steps = self.column(&["step", "epoch"]);
        let help = "write whole numbers from 0 in a column `step`, or nothing for a final value";
        let mut found = Vec::new();
        for line in 0..self.lines.len() {
            let step = match steps {
                Some(column) if self.cell(line, column) != Cell::Nothing => {
                    Some(self.step(line, column).map_err(|err| err.help(help))?)
                }
                _ => None,
            };
            let value = match self.cell(line, values) {
                Cell::Number(number) => Some(number),
                Cell::Nothing | Cell::Undefined => None,
                Cell::Text(_) => return Err(self.no_number(line, values)),
            };
            let name = &self.lines[line][names];
            if name.is_empty() {
                let (line, file) = (self.number(line), self.file);
                return Err(StageError::new(format!(
                    "line {line} of the metrics in `{file}` names no metric"
                )));
            }
            found.push((line, metric(name, step, value)));
        }
        match self.clash(&found) {
            Some(clash) => Err(self.told(&clash).help(match clash.step {
                Some(_) => "write each metric once at each step",
                None => "write each metric once, or its steps in a column `step`",
            })),
            None => Ok(found.into_iter().map(|(_, event)| event).collect()),
        }
    }

    fn by_column(&self) -> Result<Vec<Event>, StageError> {
        let help = "write whole numbers from 0, each value at a step of its own; \
                    or call the column otherwise: then lines are counted as steps";
        if let Some(column) = self.column(&["step"]) {
            let steps: Result<Vec<_>, _> =
                (0..self.lines.len()).map(|line| self.step(line, column)).collect();
            let steps = steps.map_err(|err| err.help(help))?;
            return self.at_steps(column, &steps)?.map_err(|clash| self.told(&clash).help(help));
        }
        let epochs = self.column(&["epoch"]);
        if let Some(column) = epochs {
            let steps: Option<Vec<_>> =
                (0..self.lines.len()).map(|line| self.cell(line, column).step()).collect();
            if let Some(steps) = steps
                && let Ok(found) = self.at_steps(column, &steps)?
            {
                return Ok(found);
            }
        }
        let is_curve = self.lines.len() > 1 || epochs.is_some();
        let found = self.values(None, &[], |line| is_curve.then_some(line as u64 + 1))?;
        Ok(found.into_iter().map(|(_, event)| event).collect())
    }

    /// The values of all columns but `column` at the `steps` of their lines, or two of one metric at one step
    /// that texts do not tell apart.
    fn at_steps(&self, column: usize, steps: &[u64]) -> Result<Result<Vec<Event>, Clash>, StageError> {
        let events = |found: Vec<(usize, Event)>| found.into_iter().map(|(_, event)| event).collect();
        let found = self.values(Some(column), &[], |line| Some(steps[line]))?;
        let Some(clash) = self.clash(&found) else { return Ok(Ok(events(found))) };
        let is_of_texts = |column: &usize| {
            (0..self.lines.len()).all(|line| matches!(self.cell(line, *column), Cell::Text(_)))
        };
        let texts: Vec<_> = (0..self.headings.len()).filter(is_of_texts).collect();
        let found = self.values(Some(column), &texts, |line| Some(steps[line]))?;
        Ok(if self.clash(&found).is_none() { Ok(events(found)) } else { Err(clash) })
    }

    /// The values of all columns but `steps`, each with its line; their names begin with the `texts` of the line.
    fn values(
        &self,
        steps: Option<usize>,
        texts: &[usize],
        step_of: impl Fn(usize) -> Option<u64>,
    ) -> Result<Vec<(usize, Event)>, StageError> {
        let mut columns = Vec::new();
        for (column, heading) in self.headings.iter().enumerate() {
            if heading.is_empty() || Some(column) == steps || self.is_text(column)? {
                continue;
            }
            if columns.iter().any(|&(_, other)| other == heading) {
                let file = self.file;
                let twice =
                    StageError::new(format!("two columns of the metrics in `{file}` are called `{heading}`"));
                return Err(twice.help("give each column a name of its own"));
            }
            columns.push((column, heading));
        }
        let mut found = Vec::new();
        for line in 0..self.lines.len() {
            let before: String =
                texts.iter().map(|column| format!("{}.", &self.lines[line][*column])).collect();
            for &(column, heading) in &columns {
                let value = match self.cell(line, column) {
                    Cell::Number(number) => Some(number),
                    Cell::Undefined => None,
                    Cell::Nothing | Cell::Text(_) => continue,
                };
                found.push((line, metric(&format!("{before}{heading}"), step_of(line), value)));
            }
        }
        Ok(found)
    }

    /// Whether a column holds texts and no number; both are an error.
    fn is_text(&self, column: usize) -> Result<bool, StageError> {
        let cells = || (0..self.lines.len()).map(|line| self.cell(line, column));
        match cells().position(|cell| matches!(cell, Cell::Text(_))) {
            Some(line) if cells().any(|cell| matches!(cell, Cell::Number(_))) => {
                Err(self.no_number(line, column))
            }
            text => Ok(text.is_some()),
        }
    }

    fn step(&self, line: usize, column: usize) -> Result<u64, StageError> {
        self.cell(line, column)
            .step()
            .ok_or_else(|| self.wrong(line, column, "which is no whole number from 0"))
    }

    fn no_number(&self, line: usize, column: usize) -> StageError {
        self.wrong(line, column, "which is no number").help(
            "write a number such as `0.5` or `1e-3`, `nan` if it is undefined, or nothing if there is none",
        )
    }

    fn wrong(&self, line: usize, column: usize, what: &str) -> StageError {
        let text = match &self.lines[line][column] {
            "" => "nothing".to_owned(),
            text => format!("`{text}`"),
        };
        let (line, file, heading) = (self.number(line), self.file, &self.headings[column]);
        StageError::new(format!(
            "line {line} of the metrics in `{file}` has {text} in column `{heading}`, {what}"
        ))
    }

    fn told(&self, Clash { lines: [first, second], metric, step }: &Clash) -> StageError {
        let (file, step) = (self.file, step.map(|step| format!(" at step {step}")).unwrap_or_default());
        StageError::new(format!(
            "lines {first} and {second} of the metrics in `{file}` both give `{metric}`{step}"
        ))
    }

    /// The first two lines of `found` that give the same metric at the same step.
    fn clash(&self, found: &[(usize, Event)]) -> Option<Clash> {
        let mut seen: HashMap<Found, usize> = HashMap::with_capacity(found.len());
        found.iter().find_map(|(line, event)| {
            let what = Found::of(event)?;
            let before = seen.insert(what, *line)?;
            let lines = [self.number(before), self.number(*line)];
            Some(Clash { lines, metric: what.name.to_owned(), step: what.step })
        })
    }

    /// The number of a line in the file, from 1.
    fn number(&self, line: usize) -> u64 {
        let Some(from) = self.lines[line].position() else { return 0 };
        // Empty lines before a record are counted to it.
        let before =
            self.text.as_bytes()[from.byte() as usize..].iter().take_while(|&&c| c == b'\n' || c == b'\r');
        from.line() + before.filter(|&&c| c == b'\n').count() as u64
    }
}
