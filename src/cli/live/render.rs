//! What the live view shows of a [`State`]: a few lines that fit the terminal.

use std::time::Duration;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use super::state::{Running, State, Status};
use crate::{
    cli::{
        line::{INDENT, Line, bold, dim},
        lines::name_width,
    },
    meant::parts,
    record::Outcome,
    units::{shortened, size},
};

/// Narrowest and widest bar.
const BAR: (usize, usize) = (8, 24);
/// Columns that a name may have on any terminal.
const NAME: usize = 24;
/// Spaces between columns.
const GAP: usize = 2;
/// How many stages a waiting stage is said to wait for by name.
const NAMED: usize = 3;

/// What is said of a stage that runs, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Bar,
    Count,
    Rate,
    Left,
    Loss,
    Memory,
    Elapsed,
}

const COLUMNS: [Column; 7] =
    [Column::Bar, Column::Count, Column::Rate, Column::Left, Column::Loss, Column::Memory, Column::Elapsed];
/// What is left out first where there is too little room.
const LEFT_OUT: [Column; 7] =
    [Column::Bar, Column::Count, Column::Elapsed, Column::Memory, Column::Rate, Column::Loss, Column::Left];

/// Draws `state` as it is `now` on a terminal of `width` columns and `height` rows: fewer lines than
/// rows, none as wide as the terminal.
///
/// What runs comes first, then what is looked at, then what waits as far as there is room; the last
/// line is about the run as a whole.
pub fn render(state: &State, width: usize, height: usize, now: Duration) -> Vec<Line> {
    // A line that fills the last column would leave the cursor beyond it.
    let width = width.saturating_sub(1);
    let Some(room) = height.checked_sub(2) else { return Vec::new() };
    let names: Vec<String> = state.stages.keys().cloned().collect();
    // A long name leaves room for what is said of the stage.
    let name_width = name_width(&names).min((width / 2).max(NAME));
    let mut lines = running(state, name_width, width, now);
    if let Some((stage, inputs, since)) = &state.looking {
        let elapsed = clock(now.saturating_sub(*since));
        let line = head("hashing", bold(AnsiColor::Cyan), stage, name_width);
        lines.push(line.say(format!("{elapsed}  {inputs}")));
    }
    if lines.len() > room {
        lines.truncate(room.saturating_sub(1));
        let count = state.count(|status| matches!(status, Status::Running(_)));
        let more = count.saturating_sub(lines.len());
        if room > 0 {
            lines.push(Line::indented().then(dim(), format!("and {more} more that run")));
        }
    }
    lines.extend(waiting(state, name_width).take(room - lines.len()));
    lines.push(summary(state, now));
    lines.into_iter().map(|line| line.cut(width)).collect()
}

fn head(verb: &str, style: Style, stage: &str, name_width: usize) -> Line {
    let name = if stage.width() > name_width { shortened(stage, name_width) } else { stage.to_owned() };
    let padding = " ".repeat(name_width.saturating_sub(name.width()));
    Line::new(verb, style).say(format!("{name}{padding}  "))
}

/// A line for each stage that runs, in columns.
fn running(state: &State, name_width: usize, width: usize, now: Duration) -> Vec<Line> {
    let stages = state.stages.iter().enumerate().filter_map(|(at, (name, stage))| match &stage.status {
        Status::Running(running) => Some((name, running, state.left(at, now))),
        _ => None,
    });
    let stages: Vec<_> = stages.collect();
    let cell = |column: Column, at: usize| {
        let (_, running, left): &(&String, &Running, Option<f64>) = &stages[at];
        text(column, running, *left, now)
    };
    let widest = |column: Column| (0..stages.len()).map(|at| cell(column, at).width()).max().unwrap_or(0);
    let mut columns: Vec<(Column, usize)> = COLUMNS.map(|column| (column, widest(column))).to_vec();
    columns.retain(|(_, width)| *width > 0);
    let room = width.saturating_sub(INDENT + name_width + GAP);
    let taken = |columns: &[(Column, usize)]| -> usize {
        columns.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
    };
    for column in LEFT_OUT {
        if taken(&columns) <= room || columns.len() == 1 {
            break;
        }
        columns.retain(|(other, _)| *other != column);
    }
    let spare = room.saturating_sub(taken(&columns));
    let bar_width = (BAR.0 + spare).min(BAR.1);
    let mut lines = Vec::new();
    for (at, (name, running, _)) in stages.iter().enumerate() {
        let fraction = running.fraction();
        let verb = match fraction {
            _ if running.is_keeping => "keeping".to_owned(),
            Some(fraction) => format!("{:.0}%", (fraction * 100.0).floor()),
            None => "running".to_owned(),
        };
        let mut line = head(&verb, bold(AnsiColor::Cyan), name, name_width);
        for (number, (column, width)) in columns.iter().enumerate() {
            if number > 0 {
                line = line.say(" ".repeat(GAP));
            }
            line = match (column, fraction) {
                (Column::Bar, Some(fraction)) => bar(line, fraction, bar_width),
                (Column::Bar, None) => line.say(" ".repeat(bar_width)),
                (Column::Loss, _) => line.say(format!("{:<width$}", cell(*column, at))),
                _ => line.say(format!("{:>width$}", cell(*column, at))),
            };
        }
        lines.push(line);
    }
    lines
}

fn bar(line: Line, fraction: f64, width: usize) -> Line {
    let full = (fraction * width as f64).floor() as usize;
    line.then(AnsiColor::Cyan.on_default(), "━".repeat(full)).then(dim(), "╌".repeat(width - full))
}

/// What a column says; nothing where nothing is known.
fn text(column: Column, running: &Running, left: Option<f64>, now: Duration) -> String {
    let is_bytes = running.unit == "bytes";
    let amount = |count: u64| if is_bytes { size(count) } else { count.to_string() };
    match column {
        Column::Bar => running.fraction().map_or_else(String::new, |_| " ".repeat(BAR.0)),
        Column::Count => {
            let Some(done) = running.done() else { return String::new() };
            let total = running.total.map(|total| format!("/{}", amount(total))).unwrap_or_default();
            // The unit stands once, with the pace where that is known.
            let is_said = is_bytes || running.rate().is_some();
            let unit = if is_said { String::new() } else { format!(" {}", running.unit) };
            format!("{}{total}{unit}", amount(done))
        }
        Column::Rate => match running.rate() {
            None => String::new(),
            Some(rate) if is_bytes => format!("{}/s", size(rate as u64)),
            Some(rate) if rate < 10.0 => format!("{rate:.1} {}/s", running.unit),
            Some(rate) => format!("{rate:.0} {}/s", running.unit),
        },
        Column::Left => left.map_or_else(String::new, |left| format!("{} left", clock_of(left))),
        Column::Loss => running.loss.map_or_else(String::new, |loss| format!("loss {loss:.4}")),
        Column::Memory => running.memory.map_or_else(String::new, size),
        Column::Elapsed => clock(now.saturating_sub(running.since)),
    }
}

/// A line for each stage that waits, and what for.
fn waiting(state: &State, name_width: usize) -> impl Iterator<Item = Line> {
    let looked_at = state.looking.as_ref().and_then(|(stage, ..)| state.stages.get_index_of(stage));
    state.stages.values().enumerate().filter_map(move |(at, stage)| {
        let what = match &stage.status {
            Status::Waiting if looked_at == Some(at) => return None,
            Status::Waiting => waits_for(state, &stage.upstream),
            Status::Held(holder) => format!("for {holder}, which is computing it"),
            Status::Running(_) | Status::Ended(_) => return None,
        };
        let (name, _) = state.stages.get_index(at)?;
        Some(head("waiting", dim(), name, name_width).then(dim(), what))
    })
}

fn waits_for(state: &State, upstream: &[usize]) -> String {
    let has_result = |status: &Status| matches!(status, Status::Ended(Outcome::Ran | Outcome::Cached));
    let missing = upstream.iter().filter_map(|at| state.stages.get_index(*at));
    let missing: Vec<&str> =
        missing.filter(|(_, stage)| !has_result(&stage.status)).map(|(name, _)| name.as_str()).collect();
    let missing = parts(&missing);
    match missing.len() {
        0 if state.looking.is_some() => "to be looked up".into(),
        0 => "for free cores".into(),
        count if count > NAMED => {
            format!("for {} and {} more", missing[..NAMED - 1].join(", "), count + 1 - NAMED)
        }
        _ => format!("for {}", missing.join(", ")),
    }
}

/// The run as a whole.
fn summary(state: &State, now: Duration) -> Line {
    let ended =
        |outcome: Outcome| state.count(|status| matches!(status, Status::Ended(it) if *it == outcome));
    let counts = [
        (ended(Outcome::Ran), "done"),
        (ended(Outcome::Cached), "cached"),
        (ended(Outcome::Failed), "failed"),
        (state.count(|status| matches!(status, Status::Running(_))), "running"),
        (state.count(|status| matches!(status, Status::Waiting | Status::Held(_))), "waiting"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told.map(|(count, what)| format!("{count} {what}")).collect();
    let (left, is_open) = state.all_left(now);
    let about = if is_open { "more than" } else { "about" };
    let left = if left >= 1.0 { format!(", {about} {} left", clock_of(left)) } else { String::new() };
    let line = Line::new(&state.run, Style::new().bold());
    line.say(format!("{}{left}", clock(now))).then(dim(), format!("  {}", told.join(", ")))
}

impl State {
    fn count(&self, is_meant: impl Fn(&Status) -> bool) -> usize {
        self.stages.values().filter(|stage| is_meant(&stage.status)).count()
    }
}

/// `0:07`, `12:30`, `1:02:03`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        ..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60),
    }
}

/// The same, of seconds that are not certain: none is left only when it is over.
fn clock_of(seconds: f64) -> String {
    clock(Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{super::state::sample::*, *};

    /// Two stages train, one downloads, three wait.
    fn training() -> State {
        let mut state = State::of(&[
            ("reviews", stage(&[], 0.5, Some(2.0))),
            ("tokens_train", stage(&[0], 0.5, Some(1.0))),
            ("fine_tune", stage(&[1], 1.0, Some(60.0))),
            ("lora", stage(&[1], 1.0, Some(30.0))),
            ("weights_file", stage(&[], 0.5, None)),
            ("fine_tuned", stage(&[2], 1.0, Some(5.0))),
            ("lora_tuned", stage(&[3], 1.0, Some(5.0))),
            ("eval", stage(&[5, 6], 0.5, Some(1.0))),
        ]);
        state.end("reviews", Outcome::Cached);
        state.end("tokens_train", Outcome::Ran);
        state.start("fine_tune", 0.0);
        state.start("lora", 2.0);
        state.start("weights_file", 2.0);
        state.report("fine_tune", 2.0, progress(2, Some(44), "updates"));
        state.report("fine_tune", 22.0, progress(24, Some(44), "updates"));
        state.report("fine_tune", 22.0, loss(0.512_34));
        state.report("weights_file", 3.0, progress(0, Some(548_000_000), "bytes"));
        state.report("weights_file", 22.0, progress(228_000_000, Some(548_000_000), "bytes"));
        state.measured(&HashMap::from([
            ("fine_tune".into(), 555_000_000),
            ("lora".into(), 260_000_000),
            ("weights_file".into(), 22_000_000),
        ]));
        state
    }

    fn drawn(state: &State, width: usize, height: usize, now: f64) -> String {
        let lines = render(state, width, height, seconds(now));
        lines.iter().map(|line| line.plain().trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn at_80_columns_bars_give_way_to_figures() {
        insta::assert_snapshot!(drawn(&training(), 80, 24, 22.4), @r"
                   54% fine_tune     1.1 updates/s  0:18 left  loss 0.5123  555 MB  0:22
               running lora                         0:10 left               260 MB  0:20
                   41% weights_file        12 MB/s  0:27 left                22 MB  0:20
               waiting fine_tuned    for fine_tune
               waiting lora_tuned    for lora
               waiting eval          for fine_tuned, lora_tuned
                 run_3 0:22, about 0:52 left  1 done, 1 cached, 3 running, 3 waiting
        ");
    }

    #[test]
    fn at_200_columns_there_is_room_for_all() {
        insta::assert_snapshot!(drawn(&training(), 200, 50, 22.4), @r"
                   54% fine_tune     ━━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌          24/44  1.1 updates/s  0:18 left  loss 0.5123  555 MB  0:22
               running lora                                                                  0:10 left               260 MB  0:20
                   41% weights_file  ━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  228 MB/548 MB        12 MB/s  0:27 left                22 MB  0:20
               waiting fine_tuned    for fine_tune
               waiting lora_tuned    for lora
               waiting eval          for fine_tuned, lora_tuned
                 run_3 0:22, about 0:52 left  1 done, 1 cached, 3 running, 3 waiting
        ");
    }

    #[test]
    fn what_runs_and_the_run_as_a_whole_come_before_what_waits() {
        insta::assert_snapshot!(drawn(&training(), 60, 6, 22.4), @r"
                   54% fine_tune     0:18 left  loss 0.5123
               running lora          0:10 left
                   41% weights_file  0:27 left
               waiting fine_tuned    for fine_tune
                 run_3 0:22, about 0:52 left  1 done, 1 cached, 3 runni…
        ");
        insta::assert_snapshot!(drawn(&training(), 60, 4, 22.4), @r"
                   54% fine_tune     0:18 left  loss 0.5123
                       and 2 more that run
                 run_3 0:22, about 0:52 left  1 done, 1 cached, 3 runni…
        ");
    }

    #[test]
    fn what_is_awaited_of_a_matrix_is_told_as_a_person_would() {
        let mut state = State::of(&[
            ("train[rank=4,seed=1]", stage(&[], 0.5, None)),
            ("train[rank=4,seed=2]", stage(&[], 0.5, None)),
            ("train[rank=8,seed=1]", stage(&[], 0.5, None)),
            ("best", stage(&[0, 1, 2], 0.5, None)),
        ]);
        let told = |state: &State| drawn(state, 80, 24, 1.0).lines().nth(3).unwrap_or_default().to_owned();
        assert_eq!(told(&state), "  waiting best                  for train");
        state.end("train[rank=8,seed=1]", Outcome::Ran);
        let line = drawn(&state, 80, 24, 1.0);
        assert!(line.contains("  waiting best                  for train[rank=4]\n"), "{line}");
    }

    #[test]
    fn what_is_hashed_is_named() {
        let mut state = State::of(&[("reviews", stage(&[], 0.5, None)), ("eval", stage(&[0], 0.5, None))]);
        state.looking = Some(("reviews".into(), "data/aclImdb_v1.tar.gz (2.1 GB)".into(), seconds(1.0)));
        insta::assert_snapshot!(drawn(&state, 80, 24, 4.5), @r"
               hashing reviews  0:03  data/aclImdb_v1.tar.gz (2.1 GB)
               waiting eval     for reviews
                 run_3 0:04  2 waiting
        ");
    }

    #[test]
    fn a_long_name_leaves_room_for_what_is_said_of_the_stage() {
        let long = "train[rank=16,learning_rate=0.00001,seed=2]";
        let mut state = State::of(&[
            (long, stage(&[], 0.5, Some(60.0))),
            ("train[rank=4,lr=0.1]", stage(&[], 0.5, None)),
        ]);
        state.start(long, 0.0);
        state.start("train[rank=4,lr=0.1]", 0.0);
        state.report(long, 1.0, loss(0.512_34));
        let told = drawn(&state, 80, 24, 22.4);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].contains("loss 0.5123") && lines[0].contains('…'), "{told}");
        assert!(lines.iter().all(|line| line.chars().count() < 80), "{told}");
        let column = |line: &str| line.trim_end().chars().count();
        assert_eq!(column(lines[0]), column(lines[1]), "{told}");
    }

    #[test]
    fn no_size_is_too_small_and_nothing_is_too_wide() {
        let state = training();
        for width in 0..120 {
            for height in 0..12 {
                let lines = render(&state, width, height, seconds(4000.0));
                assert!(lines.len() < height.max(1), "{} lines of {height}", lines.len());
                assert!(lines.iter().all(|line| line.width() < width.max(1)), "{width}: {lines:?}");
            }
        }
    }
}
