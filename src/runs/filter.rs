//! `eval.lora.accuracy > 0.9 and (lora.rank <= 8 or tag = baseline)`: which runs are meant.
//!
//! ```text
//! any    = all { "or" all }
//! all    = one { "and" one }
//! one    = "not" one | "(" any ")" | COLUMN OP VALUE      OP: = != < <= > >= ~
//! ```

use jiff::civil::DateTime;
use miette::{Diagnostic, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};
use pipe_stages::nearest;
use thiserror::Error;

use super::column::Column;
use crate::names::outside_brackets;

/// A condition on runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// One of them holds.
    Any(Vec<Filter>),
    /// All of them hold.
    All(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A column compares with a value like this.
    Compare(Column, Operator, Literal),
}

/// How a column compares with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `~`: contains, in capitals or not
    Contains,
}

/// A value that is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// A condition that cannot be read.
#[derive(Debug, Error, Diagnostic)]
#[error("{message}")]
pub struct FilterError {
    message: String,
    #[source_code]
    text: Condition,
    #[label]
    at: SourceSpan,
    #[help]
    help: String,
}

/// A condition as it was written: drawn whole, whatever is wrong with it.
#[derive(Debug)]
struct Condition(String);

impl SourceCode for Condition {
    fn read_span<'a>(
        &'a self,
        _: &SourceSpan,
        _: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let all = SourceSpan::from((0, self.0.len()));
        Ok(Box::new(MietteSpanContents::new(self.0.as_bytes(), all, 0, 0, 1)))
    }
}

const OPERATORS: [(&str, Operator); 8] = [
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::More),
    ("~", Operator::Contains),
];
const EXAMPLE: &str = "write conditions such as `eval.accuracy > 0.9 and (lora.rank <= 8 or tag = best)`";
/// Deepest nesting of parentheses and `not`.
const DEPTH: usize = 100;

impl Filter {
    /// Reads a condition.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut reader = Reader { text, at: 0, depth: 0 };
        let filter = reader.any()?;
        match reader.peek() {
            None => Ok(filter),
            Some(word) => Err(reader.wrong(
                word,
                format!("`{word}` is not expected here"),
                "join conditions with `and` or `or`",
            )),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// The next word, operator or parenthesis.
    fn peek(&mut self) -> Option<&'a str> {
        self.at += self.text[self.at..].len() - self.text[self.at..].trim_start().len();
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        if let Some((operator, _)) = OPERATORS.iter().find(|(operator, _)| rest.starts_with(operator)) {
            return Some(&rest[..operator.len()]);
        }
        let length = match first {
            '(' | ')' => 1,
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            _ => word(rest),
        };
        Some(&rest[..length.max(first.len_utf8())])
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(word));
        if is_next {
            self.at += word.len();
        }
        is_next
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut list = vec![self.all()?];
        while self.take("or") {
            list.push(self.all()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::Any(list) })
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let mut list = vec![self.one()?];
        while self.take("and") {
            list.push(self.one()?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Filter::All(list) })
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong("", "the condition is nested too deep".into(), EXAMPLE));
        }
        let filter = if self.take("not") {
            Filter::Not(Box::new(self.one()?))
        } else if self.take("(") {
            let filter = self.any()?;
            if !self.take(")") {
                let word = self.peek().unwrap_or_default();
                return Err(self.wrong(word, "a `)` is missing".into(), EXAMPLE));
            }
            filter
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, FilterError> {
        let Some(name) = self.peek().filter(|word| is_word(word)) else {
            let word = self.peek().unwrap_or_default();
            return Err(self.wrong(word, "a column is missing".into(), EXAMPLE));
        };
        let column = Column::parse(name)
            .map_err(|help| self.wrong(name, format!("there is no column `{name}`"), &help))?;
        self.at += name.len();
        let word = self.peek().unwrap_or_default();
        let Some((_, operator)) = OPERATORS.iter().find(|(operator, _)| *operator == word) else {
            let message = format!("`{name}` is compared with nothing");
            return Err(self.wrong(word, message, "operators are =, !=, <, <=, >, >= and ~ (contains)"));
        };
        self.at += word.len();
        let value = self.peek().unwrap_or_default();
        let quoted = value.len() > 1 && value.starts_with(['"', '\'']) && value.ends_with(&value[..1]);
        if !quoted && !is_word(value) {
            return Err(self.wrong(
                value,
                "a value is missing".into(),
                "texts with blanks are written in quotes",
            ));
        }
        let plain = if quoted { &value[1..value.len() - 1] } else { value };
        if let Some(values) =
            column.values().filter(|_| matches!(operator, Operator::Equal | Operator::Unequal))
            && !values.contains(&plain)
        {
            let near = nearest(plain, values.iter().copied());
            let help = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it can be {}", values.join(", ")),
            };
            return Err(self.wrong(value, format!("no run can have the {name} `{plain}`"), &help));
        }
        if column.is_time() && *operator != Operator::Contains {
            let Some(time) = time(plain) else {
                let help = "write a time in UTC: `2026-03-01`, or `'2026-03-01 12:30'` in quotes";
                return Err(self.wrong(value, format!("`{plain}` is no time"), help));
            };
            self.at += value.len();
            return Ok(Filter::Compare(column, *operator, Literal::Text(time)));
        }
        let contains = *operator == Operator::Contains;
        let is_number = if contains { Some(false) } else { column.is_number() };
        let literal = match plain.strip_prefix("run_").filter(|_| name == "run").unwrap_or(plain).parse() {
            Ok(number) if is_number.unwrap_or(!quoted) => Literal::Number(number),
            Err(_) if is_number == Some(true) => {
                let help = match name {
                    "run" => "write a run as `run = 12` or `run >= run_12`",
                    "seconds" => "write a time in seconds: `seconds > 90`",
                    _ => "write a number, such as `cached > 0`",
                };
                return Err(self.wrong(value, format!("`{name}` is a number, and `{plain}` is none"), help));
            }
            _ => Literal::Text(plain.to_owned()),
        };
        self.at += value.len();
        Ok(Filter::Compare(column, *operator, literal))
    }

    fn wrong(&self, word: &str, message: String, help: &str) -> FilterError {
        let at = SourceSpan::from((self.at.min(self.text.len()), word.len()));
        FilterError { message, text: Condition(self.text.to_owned()), at, help: help.into() }
    }
}

/// The beginning of a time as the database has it, if `text` is one: `2026`, `2026-03-01` or
/// `2026-03-01 12:30`.
fn time(text: &str) -> Option<String> {
    const REST: &str = "0000-01-01T00:00:00.000000";
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let text = text.replacen([' ', 't'], "T", 1);
    // It ends where a part of a time does.
    let is_whole = match text.len() {
        4 | 7 | 10 | 13 | 16 | 19 => true,
        length => (21..=26).contains(&length),
    };
    let whole = format!("{text}{}", REST.get(text.len()..)?);
    let has_offset = text.get(10..).is_some_and(|clock| clock.contains(['+', '-']));
    (is_whole && !has_offset && whole.parse::<DateTime>().is_ok()).then_some(text)
}

/// The length of the column or value that `rest` begins with: what is in the brackets of a stage's name, such
/// as `train[rank=4,lr=0.1].loss`, belongs to it.
fn word(rest: &str) -> usize {
    let mut is_equals = outside_brackets('=');
    let end = |c: char| is_equals(c) || c.is_whitespace() || "()!<>~\"'".contains(c);
    rest.find(end).unwrap_or(rest.len())
}

/// Whether it can be a column or a value, rather than an operator, a bracket or a broken text.
fn is_word(text: &str) -> bool {
    text.chars().next().is_some_and(|c| !"()=!<>~\"'".contains(c))
}
