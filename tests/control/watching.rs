//! `--watch`: runs again on every change of what the pipeline is made of.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStderr, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use rustix::process::Signal;

use crate::lab::{Lab, send, wait_until};

/// `pipe run --watch`, whose lines are read as it says them.
struct Watching {
    pipe: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(lab: &Lab, more: &[&str]) -> Self {
        let mut command = lab.command(&[&["run", "pipelines/p.yaml", "--watch"], more].concat());
        let mut pipe = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(pipe.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let read = move |stderr: BufReader<ChildStderr>| {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        };
        std::thread::spawn(move || read(stderr));
        Self { pipe, lines }
    }

    /// What is said up to the line that contains `text`, that one included.
    #[track_caller]
    fn until(&self, text: &str) -> String {
        let mut said = String::new();
        while !said.lines().last().is_some_and(|line| line.contains(text)) {
            match self.lines.recv_timeout(Duration::from_mins(1)) {
                Ok(line) => said.push_str(&(line + "\n")),
                Err(err) => panic!("`{text}` was not said ({err}):\n{said}"),
            }
        }
        said
    }

    fn interrupt(&self) {
        send(Signal::INT, i32::try_from(self.pipe.id()).unwrap());
    }

    fn code(&mut self) -> Option<i32> {
        self.pipe.wait().unwrap().code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.pipe.kill();
    }
}

const INPUTS: &str = "stages:
  a:
    kind: shell
    in: { file: { file: x.txt }, folder: { dir: data }, texts: { glob: 'texts/*.txt' } }
    with: { command: 'cat {in.file} > {out.y}; ls {in.folder} {in.texts}', outputs: [y] }
";

fn inputs() -> Lab {
    let lab = Lab::new(INPUTS);
    fs::create_dir_all(lab.path("data/deep")).unwrap();
    fs::create_dir(lab.path("texts")).unwrap();
    for file in ["x.txt", "data/deep/d.txt", "texts/t.txt"] {
        lab.write(file, "1");
    }
    lab
}

#[test]
fn a_change_of_the_file_and_of_every_sort_of_input_is_a_run_of_its_own() {
    let lab = inputs();
    let mut watching = Watching::start(&lab, &[]);
    let first = watching.until("watching 4 paths");
    assert!(first.contains("1 ran"), "{first}");
    let mut run = 1;
    let mut reruns = |change: &dyn Fn()| {
        change();
        run += 1;
        let said = watching.until("watching");
        assert!(said.contains(&format!("run_{run}")) && said.contains("1 ran"), "{run}: {said}");
        assert_eq!(said.matches("watching").count(), 1);
    };
    reruns(&|| lab.write("x.txt", "22"));
    reruns(&|| lab.write("data/deep/new.txt", "1"));
    reruns(&|| lab.write("texts/u.txt", "1"));
    reruns(&|| {
        fs::remove_file(lab.path("texts/u.txt")).and_then(|()| fs::write(lab.path("x.txt"), "3")).unwrap();
    });
    reruns(&|| lab.edit("ls {in.folder}", "ls -l {in.folder}"));
    // As editors do: write beside it, then rename.
    reruns(&|| {
        let text = fs::read_to_string(lab.path("pipelines/p.yaml")).unwrap();
        lab.write("pipelines/.p.swp", text.replace("ls -l", "ls -a"));
        fs::rename(lab.path("pipelines/.p.swp"), lab.path("pipelines/p.yaml")).unwrap();
    });
    reruns(&|| lab.edit("ls -a", "ls -r"));
    watching.interrupt();
    assert_eq!(watching.code(), Some(0), "Ctrl-C while it waits is no failure");
    assert_eq!(lab.ask::<i64>("SELECT count(*) FROM run"), 8);
}

#[test]
fn a_file_that_is_broken_or_lacks_an_input_tells_its_errors_and_is_watched_on() {
    let lab = Lab::new(
        "stages: { a: { kind: shell, in: { x: { file: x.txt } }, with: { command: 'cat {in.x}' } } }",
    );
    let mut watching = Watching::start(&lab, &[]);
    assert!(watching.until("watching 2 paths").contains("`x.txt` does not exist"));
    lab.write("x.txt", "1");
    assert!(watching.until("watching").contains("1 ran"));
    lab.edit("stages: {", "stages: [");
    assert!(watching.until("watching").contains("pipelines/p.yaml:1:"));
    lab.edit("stages: [", "stages: {");
    assert!(watching.until("watching").contains("nothing to do"));
    lab.edit("cat {in.x}", "cat {in.x}; exit 3");
    assert!(watching.until("watching").contains("exit code 3"), "a failed run, too, is watched on");
    watching.interrupt();
    assert_eq!(watching.code(), Some(0));
}

#[test]
fn a_change_while_a_run_goes_on_is_followed_by_another() {
    let lab = Lab::new(
        "stages:
  gate: { kind: shell, with: { command: 'touch started; until test -e go; do sleep 0.01; done' } }
  read: { kind: shell, in: { x: { file: x.txt } }, with: { command: 'cat {in.x}' } }
",
    );
    lab.write("x.txt", "1");
    let watching = Watching::start(&lab, &["-j", "2"]);
    watching.until("done read");
    wait_until("the gate", || lab.path("started").exists());
    lab.write("x.txt", "22");
    lab.write("go", "");
    let said = watching.until("watching");
    assert!(said.contains("run_1"), "{said}");
    let said = watching.until("watching");
    assert!(said.contains("changed x.txt") && said.contains("run_2: 1 ran, 1 cached"), "{said}");
}

#[test]
fn ctrl_c_while_a_stage_runs_interrupts_it_and_ends_with_130() {
    let lab = Lab::new("stages: { a: { kind: shell, with: { command: 'touch started; sleep 321' } } }");
    let mut watching = Watching::start(&lab, &[]);
    watching.until("running");
    wait_until("the stage", || lab.path("started").exists());
    watching.interrupt();
    assert_eq!(watching.code(), Some(130));
    assert_eq!(lab.ask::<String>("SELECT status FROM run"), "interrupted");
}
