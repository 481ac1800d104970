//! What is said of a stage that failed: what happened, the end of its log, where it is written, and
//! what to do.

use super::{
    again::{Again, folded},
    line::{INDENT, Line, dim},
    targets::quoted,
};
use crate::{
    names::{Place, RunId},
    record::StageRecord,
};

/// How many lines of a log are shown.
pub const LOG_LINES: usize = 20;
/// How many characters of a line are shown; the log has all of them.
const LONGEST_LINE: usize = 400;

/// A stage that failed.
pub struct Failing<'a> {
    /// What is recorded of it.
    pub record: &'a StageRecord,
    /// The run that it failed in.
    pub run: RunId,
    /// Where it is written.
    pub place: Option<Place>,
    /// How it is tried again.
    pub again: &'a Again,
}

impl Failing<'_> {
    /// Everything below the line that says that it failed; on a terminal of `width` columns if given.
    pub fn lines(&self, width: Option<usize>) -> Vec<Line> {
        let room = width.map(|width| width.saturating_sub(INDENT).max(20));
        let mut lines = self.what_happened(room);
        let place = self.place.iter().map(|place| Line::new("at", dim()).say(place.to_string()));
        lines.extend(place);
        let words = self.again.words(&self.record.stage, &self.record.reasons);
        let command = room.map_or_else(|| vec![words.join(" ")], |room| folded(&words, room));
        lines.extend(command.into_iter().enumerate().map(|(number, part)| {
            let line = if number == 0 { Line::new("again", dim()) } else { Line::indented() };
            line.say(part).whole()
        }));
        if !self.record.log.is_empty() {
            lines.push(Line::new("log", dim()).say(self.log_command()).whole());
        }
        lines
    }

    /// The command that prints the whole log.
    fn log_command(&self) -> String {
        format!("{} {} {}", self.again.logs.join(" "), self.run, quoted(&self.record.stage))
    }

    /// The error, with the end of the log where the error quotes it, else after it.
    fn what_happened(&self, room: Option<usize>) -> Vec<Line> {
        let error: Vec<&str> = self.record.error.as_deref().unwrap_or_default().lines().collect();
        let mut log = log_end(&self.record.log);
        // A built-in kind logs its error at the end.
        log.truncate(log.len() - repeated(&error, &log));
        let (before, after) = match quote_in(&error, &log) {
            Some(quoted) => (&error[..quoted.start], &error[quoted.end..]),
            None => (&error[..], &[][..]),
        };
        let header = match (log.len(), before.len() < error.len()) {
            (0, _) | (_, true) => None,
            (1, _) => Some("the last line of its log:".to_owned()),
            (count, _) => Some(format!("the last {count} lines of its log:")),
        };
        let told = |text: &&str| match room {
            Some(room) => textwrap::wrap(&short(text), room).iter().map(ToString::to_string).collect(),
            None => vec![short(text)],
        };
        let said =
            |part: &[&str]| part.iter().flat_map(told).map(|text| Line::indented().say(text)).collect();
        let mut lines: Vec<Line> = said(before);
        lines.extend(header.map(|header| Line::indented().say(header)));
        lines.extend(log.iter().map(|text| Line::indented().then(dim(), format!("  {text}"))));
        lines.extend::<Vec<Line>>(said(after));
        lines
    }
}

/// The last lines of a log that say something, as a terminal would show them in the end.
pub fn log_end(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| printable(line)).collect()
}

/// What is left of a line when what moves the cursor and colours the text is taken away, and what is
/// too long.
fn printable(line: &str) -> String {
    // A progress bar is drawn over and over on one line.
    let latest = line.trim_end().rsplit('\r').next().unwrap_or_default();
    let text = anstream::adapter::strip_str(latest).to_string();
    short(&text.replace('\t', "    ").chars().filter(|c| !c.is_control()).collect::<String>())
}

/// The beginning of a line that nobody would read to its end.
fn short(line: &str) -> String {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// How many of the last lines of `log` are the first ones of `error`, indented or not.
fn repeated(error: &[&str], log: &[String]) -> usize {
    let begins = |count: &usize| {
        let last = log[log.len() - count..].iter();
        last.zip(error).all(|(log, error)| log.trim() == printable(error).trim())
    };
    (1..=error.len().min(log.len())).rev().find(begins).unwrap_or(0)
}

/// The lines of `error` that are the last ones of `log`.
fn quote_in(error: &[&str], log: &[String]) -> Option<std::ops::Range<usize>> {
    let last = log.last()?;
    let end = error.iter().rposition(|line| printable(line) == *last)? + 1;
    let same = error[..end].iter().rev().zip(log.iter().rev());
    let count = same.take_while(|(error, log)| printable(error) == **log).count();
    // An error of one line may be what a stage logged last.
    (end > count).then(|| end - count..end)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::Outcome;

    fn told(error: &str, log: &str, width: Option<usize>) -> String {
        let record = StageRecord {
            stage: "lora".into(),
            kind: "shell".into(),
            kind_version: 1,
            seed: None,
            params: serde_json::Value::Null,
            key: None,
            outcome: Outcome::Failed,
            execution: None,
            reasons: Vec::new(),
            started: Timestamp::UNIX_EPOCH,
            duration: 1.0,
            exit_code: Some(3),
            error: Some(error.into()),
            log: log.into(),
        };
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let base = words(&["pipe", "run", "pipelines/all_three.yaml", "-p demo"]);
        let again = Again { base, logs: words(&["pipe", "logs"]), ..Again::default() };
        let place = Some(Place {
            source: "pipelines/all_three.yaml".into(),
            line: 12,
            column: 3,
            variables: Vec::new(),
        });
        let failing = Failing { record: &record, run: RunId(4), place, again: &again };
        failing.lines(width).iter().map(|line| line.plain() + "\n").collect()
    }

    #[test]
    fn the_log_follows_what_happened_and_then_what_to_do() {
        let log = "    0.001  reading\n    0.002  \u{1b}[31mno such token\u{1b}[0m\n";
        insta::assert_snapshot!(told("`vocab` is wrong\nbecause it is empty", log, None), @r"
                  `vocab` is wrong
                  because it is empty
                  the last 2 lines of its log:
                        0.001  reading
                        0.002  no such token
               at pipelines/all_three.yaml:12:3
            again pipe run pipelines/all_three.yaml -p demo
              log pipe logs run_4 lora
        ");
    }

    #[test]
    fn lines_that_the_error_quotes_are_said_once() {
        let log: String = (1..=30).map(|number| format!("line {number}\n")).collect();
        let error = "the command ended with exit code 3; its last lines:\nline 29\nline 30\nhelp: see there";
        let told = told(error, &log, None);
        assert!(told.contains("its last lines:\n            line 11\n"), "{told}");
        assert!(told.contains("  line 30\n          help: see there\n"), "{told}");
        assert_eq!(told.matches("line 30").count(), 1, "{told}");
    }

    #[test]
    fn an_error_that_is_logged_as_well_is_said_once() {
        let error = "line 1 is no review\nbecause it is empty\nhelp: see there";
        let logged = "reading\nline 1 is no review\n  because it is empty\n";
        insta::assert_snapshot!(told(error, logged, None), @r"
                  line 1 is no review
                  because it is empty
                  help: see there
                  the last line of its log:
                    reading
               at pipelines/all_three.yaml:12:3
            again pipe run pipelines/all_three.yaml -p demo
              log pipe logs run_4 lora
        ");
        assert!(!told(error, "line 1 is no review\n  because it is empty\n", None).contains("of its log"));
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_still_said_once() {
        let (quoted, logged) = ("0".repeat(4_096), "0".repeat(65_536));
        let told = told(&format!("the command ended; its last lines:\n{quoted}"), &logged, None);
        let cut = format!("            {}…\n", "0".repeat(LONGEST_LINE));
        assert!(told.contains(&format!("its last lines:\n{cut}")), "{told}");
        assert_eq!(told.matches("000…").count(), 1, "{told}");
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_the_command_stays_whole() {
        let error = "a long message that says in many words what has happened to the stage";
        insta::assert_snapshot!(told(error, "", Some(50)), @r"
                  a long message that says in many words
                  what has happened to the stage
               at pipelines/all_three.yaml:12:3
            again pipe run pipelines/all_three.yaml \
                    -p demo
        ");
    }
}
