//! What runs now, below the lines of what has run, on a terminal.
//!
//! Two threads share the picture: the one that runs the stages tells what happens, the other draws
//! it a few times a second, also while the first one hashes a large file.

mod render;
mod screen;
mod state;

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    line::Line,
    lines::Lines,
    units,
    view::{About, stopping},
};
use crate::{
    engine::RunEvent,
    exec::{Stop, memory_of},
    pipeline::{Source, StageSpec},
};
use render::render;
use screen::Screen;
use state::{Stage, State, Status};

/// How often the picture is drawn again.
const DRAW_EVERY: Duration = Duration::from_millis(125);
/// How often the memory of the processes is asked for.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Of more stages than this nobody asks how long they took before: that would take long itself.
const TIMED: usize = 1000;

/// The live view of a run.
pub struct Live<'a> {
    about: Rc<About<'a>>,
    lines: Lines<'a>,
    picture: Arc<Mutex<Picture>>,
    is_timed: bool,
    stop: Option<Sender<()>>,
    drawer: Option<JoinHandle<()>>,
}

struct Picture {
    state: State,
    /// Whether the run takes so long that it is worth a look.
    is_live: bool,
    screen: Screen,
    started: Instant,
}

impl<'a> Live<'a> {
    /// Shows the run from its `headline` on.
    pub fn new(about: Rc<About<'a>>, headline: Line) -> Self {
        let picture =
            Picture { state: state(&about), is_live: false, screen: Screen::new(), started: Instant::now() };
        let picture = Arc::new(Mutex::new(picture));
        locked(&picture).draw(&headline.wrapped(Self::width()));
        let (stop, stopped) = mpsc::channel();
        let drawer = {
            let (picture, processes) = (picture.clone(), about.stop.clone());
            thread::spawn(move || draw_again(&picture, &processes, &stopped))
        };
        let lines = Lines::new(about.clone());
        Self { about, lines, picture, is_timed: false, stop: Some(stop), drawer: Some(drawer) }
    }

    /// Shows one event.
    pub fn observe(&mut self, event: &RunEvent) {
        if let RunEvent::Started { .. } = event {
            self.time_stages();
        }
        self.lines.on_terminal(Self::width());
        let above = self.lines.of(event);
        let mut picture = locked(&self.picture);
        let now = picture.started.elapsed();
        picture.state.observe(event, now, |stage| outside(&self.about, stage));
        if !above.is_empty() {
            picture.draw(&above);
        }
    }

    /// Columns that a line may take: what fills the last one would leave the cursor beyond it.
    pub fn width() -> usize {
        Screen::size().0 - 1
    }

    /// Takes away what is live; returns what is left to say.
    pub fn close(self) -> Option<Line> {
        self.lines.rest()
    }

    /// Asks once how long the stages took before that are still to come.
    fn time_stages(&mut self) {
        if std::mem::replace(&mut self.is_timed, true) {
            return;
        }
        let to_come = locked(&self.picture).state.to_come(TIMED);
        for name in to_come {
            let earlier = (self.about.earlier)(&name);
            locked(&self.picture).state.stages[&name].earlier = earlier;
        }
    }
}

impl Drop for Live<'_> {
    /// Nothing is drawn any more once this returns, and the screen is clear.
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.drawer.take().map(JoinHandle::join);
        let size = Screen::size();
        locked(&self.picture).screen.draw(&[], &[], size);
    }
}

impl Picture {
    /// Draws what is live, below the lines `above` that stay.
    fn draw(&mut self, above: &[Line]) {
        let (width, height) = Screen::size();
        let lines = if self.is_live {
            render(&self.state, width, height, self.started.elapsed())
        } else {
            Vec::new()
        };
        self.screen.draw(above, &lines, (width, height));
    }
}

fn draw_again(picture: &Mutex<Picture>, processes: &Stop, stopped: &Receiver<()>) {
    let mut measured = Instant::now();
    let mut is_stopping = false;
    while stopped.recv_timeout(DRAW_EVERY) == Err(RecvTimeoutError::Timeout) {
        let memory = (measured.elapsed() >= MEASURE_EVERY).then(|| {
            measured = Instant::now();
            memory(processes)
        });
        let mut picture = locked(picture);
        if let Some(memory) = memory {
            picture.state.measured(&memory);
        }
        let has_been_told = is_stopping || !processes.is_requested() || processes.running().is_empty();
        let above = if has_been_told { Vec::new() } else { stopping().wrapped(Live::width()) };
        is_stopping |= !has_been_told;
        // The process ends in a moment, and the prompt comes where the cursor is.
        picture.is_live = !processes.is_killed();
        picture.draw(&above);
    }
}

/// The memory of each stage that has processes.
fn memory(processes: &Stop) -> HashMap<String, u64> {
    let running = processes.running();
    let groups: Vec<_> = running.iter().map(|(_, group)| *group).collect();
    let memory = memory_of(&groups);
    running.into_iter().filter_map(|(stage, group)| Some((stage, *memory.get(&group)?))).collect()
}

fn locked(picture: &Mutex<Picture>) -> MutexGuard<'_, Picture> {
    picture.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run before anything has happened in it.
fn state(about: &About<'_>) -> State {
    let places: HashMap<&str, usize> =
        about.wanted.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let stage = |name: &String| {
        let spec = &about.pipeline.stages[name];
        let upstream = spec.upstream().into_iter().filter_map(|name| places.get(name).copied()).collect();
        let share = about.capacity.share(spec).cpus as f64 / about.capacity.cpus as f64;
        (name.clone(), Stage { upstream, share, earlier: None, status: Status::Waiting })
    };
    State { run: about.run.to_string(), stages: about.wanted.iter().map(stage).collect(), looking: None }
}

/// What a stage takes from outside, with the sizes of files.
fn outside(about: &About<'_>, stage: &str) -> String {
    let told = |source: &Source| {
        let bytes = match source {
            Source::File(path) => std::fs::metadata(about.pipeline.root.join(path)).ok(),
            _ => None,
        };
        let bytes = bytes.map(|found| format!(" ({})", units::size(found.len())));
        format!("{source}{}", bytes.unwrap_or_default())
    };
    let spec = about.pipeline.stages.get(stage);
    let sources = spec.map(|spec| StageSpec::outside(spec).map(told).collect::<Vec<_>>());
    sources.unwrap_or_default().join(", ")
}
