//! On a terminal: what has run stays as a line, what runs is shown below, and nothing wraps.

use std::{
    fs::File,
    io::Read,
    num::NonZero,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    first_word::endless,
    lab::{EXPERIMENT, Lab, send, wait_until},
};

/// A run of `pipelines/p.yaml` on a terminal of its own.
struct Terminal {
    controller: File,
    emulator: vt100::Parser,
    written: Vec<u8>,
    pipe: Child,
}

impl Terminal {
    fn run(lab: &Lab, arguments: &[&str], environment: &[(&str, &str)], size: (u16, u16)) -> Self {
        let command = lab.command(&[&["run", "pipelines/p.yaml"], arguments].concat());
        Self::start(command, false, environment, size)
    }

    /// Any verb, with what it prints on the terminal as well.
    fn verb(lab: &Lab, arguments: &[&str], size: (u16, u16)) -> Self {
        Self::start(lab.command(arguments), true, &[], size)
    }

    fn start(
        mut command: Command,
        prints: bool,
        environment: &[(&str, &str)],
        (columns, rows): (u16, u16),
    ) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let user = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        resize(&controller, columns, rows);
        let stdout = if prints { user.try_clone().unwrap().into() } else { Stdio::null() };
        command.stdin(Stdio::null()).stdout(stdout).stderr(user).env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(environment.iter().copied());
        let pipe = command.spawn().unwrap();
        // Else the terminal would stay open on this side.
        drop(command);
        let emulator = vt100::Parser::new(some(rows), some(columns), 1000);
        Self { controller: controller.into(), emulator, written: Vec::new(), pipe }
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        resize(&self.controller, columns, rows);
        self.emulator.screen_mut().set_size(some(rows), some(columns));
    }

    /// Takes in something more that was written; `false` at the end.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Linux says that there is an error when the last process has closed the terminal.
        let count = self.controller.read(&mut bytes).unwrap_or(0);
        self.emulator.process(&bytes[..count]);
        self.written.extend_from_slice(&bytes[..count]);
        let screen = self.emulator.screen();
        for row in 0..screen.size().0.get() {
            assert!(!screen.row_wrapped(row), "row {row} wraps:\n{}", screen.contents());
        }
        count > 0
    }

    /// Waits until the screen shows each of `texts`.
    #[track_caller]
    fn until(&mut self, texts: &[&str]) {
        let started = Instant::now();
        while !texts.iter().all(|text| self.emulator.screen().contents().contains(text)) {
            // What is live is drawn again every second.
            let contents = self.emulator.screen().contents();
            assert!(started.elapsed() < Duration::from_mins(1), "{texts:?} did not come:\n{contents}");
            assert!(self.read(), "ended without showing {texts:?}:\n{contents}");
        }
    }

    /// The rows of the screen when the run has ended.
    fn end(&mut self) -> Vec<String> {
        while self.read() {}
        self.pipe.wait().unwrap();
        self.rows()
    }

    fn rows(&self) -> Vec<String> {
        let contents = self.emulator.screen().contents();
        contents.lines().map(|row| row.trim_end().to_owned()).collect()
    }
}

fn some(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn resize(controller: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(controller, size).unwrap();
}

/// A stage that runs until there is a file `go`, one before it and one after it.
fn slow() -> Lab {
    Lab::new(
        "stages:
  before: { kind: shell, with: { command: 'echo 1 > {out.y}', outputs: [y] } }
  a_slow_one: { kind: shell, in: { x: before }, with: { command: 'until test -e go; do sleep 0.01; done; cp {in.x} {out.y}', outputs: [y] } }
  after_the_slow_one: { kind: shell, in: { x: a_slow_one }, with: { command: 'cp {in.x} {out.y}', outputs: [y] } }
",
    )
}

#[test]
fn what_runs_is_shown_below_what_has_run_and_follows_the_size_of_the_terminal() {
    let lab = slow();
    let mut terminal = Terminal::run(&lab, &[], &[], (80, 24));
    terminal.until(&[
        "running a_slow_one",
        "waiting after_the_slow_one  for a_slow_one",
        "1 done, 1 running",
    ]);
    // What its processes have is asked for after a second.
    terminal.until(&[" MB"]);
    assert_eq!(terminal.emulator.screen().cursor_position().0, 2, "below the line of what has run");

    terminal.resize(36, 8);
    terminal.until(&["waiting after_the_slow_one  for …"]);
    assert!(terminal.rows().len() < 8, "{:?}", terminal.rows());
    terminal.resize(120, 30);
    terminal.until(&["waiting after_the_slow_one  for a_slow_one", "1 done, 1 running, 1 waiting"]);

    lab.write("go", "");
    let rows = terminal.end();
    let begins =
        ["      run run_1", "     done a_slow_one", "     done after_the_slow_one", "     done run_1"];
    for begin in begins {
        assert_eq!(rows.iter().filter(|row| row.starts_with(begin)).count(), 1, "{begin}: {rows:?}");
    }
    let live = ["running", "waiting", "run_1 0:"];
    assert!(!rows.iter().any(|row| live.iter().any(|word| row.contains(word))), "{rows:?}");
    assert_eq!(terminal.emulator.screen().cursor_position().1, 0);
}

#[test]
fn every_stage_leaves_one_line() {
    let lab = Lab::new(EXPERIMENT);
    let mut terminal = Terminal::run(&lab, &[], &[], (80, 24));
    let mut rows = terminal.end();
    // A machine that is busy elsewhere takes so long to begin that it says so.
    rows.retain(|row| !row.starts_with(" starting"));
    assert!(rows[0].starts_with("      run run_1: pipelines/p.yaml, 12 stages"), "{rows:?}");
    assert!(rows[1..13].iter().all(|row| row.starts_with("     done ")), "{rows:?}");
    assert!(rows[13].starts_with("     done run_1: 12 ran, 0 cached, in "), "{rows:?}");
    assert_eq!(rows.len(), 14, "{rows:?}");
    let eval = rows.iter().find(|row| row.starts_with("     done eval")).unwrap();
    assert!(eval.contains(".accuracy 0."), "{eval}");
}

#[test]
fn metrics_of_a_program_that_have_a_better_direction_are_told_first() {
    let lab = Lab::new(
        r#"stages: { train: { kind: shell, with: {
  command: "echo '{\"rows\": 9, \"val\": {\"loss\": 0.25}}' > {metrics}",
  metrics: m.json, better: { "*loss": lower } } } }
"#,
    );
    let rows = Terminal::run(&lab, &[], &[], (80, 24)).end();
    let done = rows.iter().find(|row| row.starts_with("     done train")).unwrap();
    assert!(done.contains("val.loss 0.250") && !done.contains("rows"), "{done}");
}

#[test]
fn what_is_hashed_is_shown() {
    let lab = endless();
    let mut terminal = Terminal::run(&lab, &[], &[], (80, 24));
    terminal.until(&["hashing read  0:", "endless"]);
    send(Signal::KILL, terminal.pipe.id().cast_signed());
    terminal.end();
}

#[test]
fn a_failed_stage_fits_and_its_command_stays_whole() {
    let lab = Lab::new(
        "stages: { bad: { kind: shell, with: { command: 'seq -s \" and \" 100; exit 3 # {params.one} {params.another} {out.y}', outputs: [y] } } }",
    );
    let sets = ["-s", "bad.params.one=1", "-s", "bad.params.another=2", "-s", "bad.env=[HOME]"];
    let mut terminal = Terminal::run(&lab, &sets, &[], (60, 24));
    let rows = terminal.end();
    assert!(rows.iter().any(|row| row.ends_with("what is done is kept")), "{rows:?}");
    let at = rows.iter().position(|row| row.starts_with("    again ")).unwrap();
    let command: String =
        rows[at..].iter().take_while(|row| !row.starts_with("      log ")).cloned().collect();
    let command = command.replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        command,
        "again pipe run pipelines/p.yaml -s bad.params.one=1 -s bad.params.another=2 -s 'bad.env=[HOME]'"
    );
    assert!(
        rows.iter().any(|row| row.starts_with("            1 and 2 and 3") && row.ends_with('…')),
        "{rows:?}"
    );
}

fn has_color(written: &[u8]) -> bool {
    let text = String::from_utf8_lossy(written).into_owned();
    let mut escapes = text.split("\u{1b}[").skip(1);
    escapes.any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn colours_are_left_out_where_nobody_wants_them_but_what_is_live_is_not() {
    for (environment, arguments, colors) in [
        (&[][..], &[][..], true),
        (&[("NO_COLOR", "1")][..], &[][..], false),
        (&[][..], &["--color", "never"][..], false),
    ] {
        let lab = slow();
        let mut terminal = Terminal::run(&lab, arguments, environment, (80, 24));
        terminal.until(&["running a_slow_one", "waiting after_the_slow_one"]);
        lab.write("go", "");
        terminal.end();
        assert_eq!(has_color(&terminal.written), colors, "{environment:?} {arguments:?}");
    }
}

#[test]
fn a_terminal_that_can_do_nothing_and_a_person_who_wants_lines_get_lines() {
    for (environment, arguments) in [
        (&[("TERM", "dumb"), ("CI", "1")][..], &[][..]),
        (&[("NO_COLOR", "1")][..], &["--progress", "plain"][..]),
    ] {
        let lab = Lab::new(EXPERIMENT);
        let mut terminal = Terminal::run(&lab, arguments, environment, (80, 30));
        terminal.end();
        assert!(!terminal.written.contains(&0x1b), "{environment:?} {arguments:?}");
        let text = String::from_utf8_lossy(&terminal.written).into_owned();
        assert!(text.contains("  running lora          no earlier result\r\n"), "{text}");
    }
}

#[test]
fn ctrl_c_is_answered_at_once_and_a_second_one_leaves_the_terminal_clean() {
    let lab = Lab::new(
        "stages:
  deaf: { kind: shell, with: { command: 'trap \"\" TERM INT HUP; touch begun; while :; do sleep 0.05; done' } }
",
    );
    let mut terminal = Terminal::run(&lab, &[], &[], (80, 24));
    terminal.until(&["running deaf"]);
    wait_until("the stage", || lab.path("begun").exists());
    let pipe = i32::try_from(terminal.pipe.id()).unwrap();
    send(Signal::INT, pipe);
    terminal.until(&["stopping what runs is asked to end; Ctrl-C again kills it", "running deaf"]);
    send(Signal::INT, pipe);
    let rows = terminal.end();
    assert!(!rows.iter().any(|row| row.contains("running")), "{rows:?}");
    assert_eq!(terminal.emulator.screen().cursor_position().1, 0);
}

#[test]
fn what_lineage_and_check_print_is_broken_between_words() {
    let lab = Lab::new(
        "stages:
  a_stage_with_a_long_name: { kind: shell, with: { command: 'echo a few words that are more than a line of a terminal has room for > {out.written_words}', outputs: [written_words], params: { unused: 1 } } }
  another_stage_with_a_long_name: { kind: shell, in: { words_of_the_first: a_stage_with_a_long_name }, with: { command: 'cp {in.words_of_the_first} {out.y}', outputs: [y] } }
profiles: { a_first_profile: {}, a_second_profile: {}, a_third_profile: {} }
",
    );
    lab.run(&[]).success();
    let last = "another_stage_with_a_long_name";
    for (verb, lines) in [(&["check", "pipelines/p.yaml"][..], 5), (&["lineage", "1", last][..], 19)] {
        let rows = Terminal::verb(&lab, verb, (60, 60)).end();
        assert_eq!(rows.len(), lines, "{}", rows.join("\n"));
        let plain = lab.pipe(verb).success();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut printed = words(&plain.stdout);
        printed.extend(words(&plain.stderr));
        assert_eq!(words(&rows.join(" ")), printed);
    }
}

#[test]
fn of_a_long_line_that_part_is_drawn_which_a_problem_is_about() {
    let command =
        "python3 train.py --data data/of/a/long/name --learning-rate 0.1 --epochs 20 {modell} --verbose";
    let lab = Lab::new(&format!("stages:\n  a: {{ kind: shell, with: {{ command: '{command}' }} }}\n"));
    for columns in [60, 80, 100] {
        let rows = Terminal::run(&lab, &[], &[("LC_ALL", "C.UTF-8")], (columns, 24)).end();
        let line = rows.iter().position(|row| row.starts_with(" 2 │ …")).expect("the line is cut");
        let under = rows[line + 1].chars().position(|letter| letter == '─').unwrap();
        let about: String = rows[line].chars().skip(under).collect();
        assert!(about.starts_with("{modell} --"), "{rows:#?}");
    }
    let rows = Terminal::run(&lab, &[], &[("LC_ALL", "C.UTF-8")], (160, 24)).end();
    assert!(rows.iter().any(|row| row.contains(command)), "{rows:#?}");
}
