//! What is known of a run at one moment, as far as the live view shows it.
//!
//! All times are counted from the start of the run.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use indexmap::IndexMap;
use pipe_stages::contract::Event;

use crate::{engine::RunEvent, record::Outcome};

/// A throughput is measured over this long.
const WINDOW: Duration = Duration::from_secs(20);
/// A throughput that was measured over less than this says nothing.
const SHORTEST: Duration = Duration::from_millis(500);

/// A run.
#[derive(Debug, Clone)]
pub struct State {
    /// Its name, such as `run_12`.
    pub run: String,
    /// Its stages, each after those that it takes from.
    pub stages: IndexMap<String, Stage>,
    /// The stage whose inputs are looked at, what they are, and since when.
    pub looking: Option<(String, String, Duration)>,
}

/// A stage of a run.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The stages of the run that it takes from, by their place.
    pub upstream: Vec<usize>,
    /// The part of the machine that it takes when it runs, in `0.0..=1.0`.
    pub share: f64,
    /// Seconds that it took before.
    pub earlier: Option<f64>,
    /// How it stands.
    pub status: Status,
}

/// How a stage stands.
#[derive(Debug, Clone)]
pub enum Status {
    /// It has not begun, and may not have to.
    Waiting,
    /// Someone else computes it.
    Held(String),
    /// It runs.
    Running(Running),
    /// Nothing more happens to it.
    Ended(Outcome),
}

/// A stage that runs.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// Since when.
    pub since: Duration,
    /// What is counted, such as `reviews`.
    pub unit: String,
    /// How many there are.
    pub total: Option<u64>,
    /// How many were done at which time, of late.
    done: VecDeque<(Duration, u64)>,
    /// The latest loss.
    pub loss: Option<f64>,
    /// Resident memory of its processes, bytes.
    pub memory: Option<u64>,
    /// Whether its processes have ended, so that its outputs are being kept.
    pub is_keeping: bool,
}

impl State {
    /// Takes in an event that happens `now`. `inputs` says what a stage takes from outside.
    pub fn observe(&mut self, event: &RunEvent, now: Duration, inputs: impl Fn(&str) -> String) {
        if !matches!(event, RunEvent::Reported { .. }) {
            self.looking = None;
        }
        match event {
            RunEvent::Idle => {}
            RunEvent::Looking { stage } => self.looking = Some((stage.clone(), inputs(stage), now)),
            RunEvent::Started { stage, .. } => {
                self.set(stage, Status::Running(Running { since: now, ..Running::default() }));
            }
            RunEvent::Retrying { stage, .. } => self.set(stage, Status::Waiting),
            RunEvent::Waiting { stage, holder } => self.set(stage, Status::Held(holder.clone())),
            RunEvent::Reported { stage, event, .. } => {
                if let Some(running) = self.running(stage) {
                    running.observe(event, now);
                }
            }
            RunEvent::Finished { record, .. } => self.set(&record.stage, Status::Ended(record.outcome)),
        }
    }

    /// Takes in how much memory the processes of each stage have that has any.
    pub fn measured(&mut self, memory: &HashMap<String, u64>) {
        for (name, stage) in &mut self.stages {
            if let Status::Running(running) = &mut stage.status {
                let found = memory.get(name).copied();
                running.is_keeping = found.is_none() && running.memory.is_some();
                running.memory = found.or(running.memory);
            }
        }
    }

    /// Seconds that the stage at `at` still takes, if that is known: from its progress, else from
    /// how long it took before.
    pub fn left(&self, at: usize, now: Duration) -> Option<f64> {
        let stage = &self.stages[at];
        match &stage.status {
            Status::Ended(_) => Some(0.0),
            Status::Running(running) => running.left(now).or_else(|| {
                let left = stage.earlier? - now.saturating_sub(running.since).as_secs_f64();
                (left > 0.0).then_some(left)
            }),
            Status::Waiting | Status::Held(_) => stage.earlier,
        }
    }

    /// About how many seconds the run still takes, and whether it may take longer since of some stage
    /// nothing is known. No less than its longest path, no less than its work on the whole machine.
    pub fn all_left(&self, now: Duration) -> (f64, bool) {
        let mut ends: Vec<f64> = Vec::with_capacity(self.stages.len());
        let (mut work, mut is_open) = (0.0, false);
        for (at, stage) in self.stages.values().enumerate() {
            let left = self.left(at, now);
            is_open |= left.is_none();
            let left = left.unwrap_or(0.0);
            work += left * stage.share;
            let begins = stage.upstream.iter().map(|above| ends[*above]).fold(0.0, f64::max);
            ends.push(begins + left);
        }
        (ends.into_iter().fold(work, f64::max), is_open)
    }

    /// The names of the first `count` stages that have not ended.
    pub fn to_come(&self, count: usize) -> Vec<String> {
        let has_ended = |stage: &Stage| matches!(stage.status, Status::Ended(_));
        let stages = self.stages.iter().filter(|(_, stage)| !has_ended(stage));
        stages.take(count).map(|(name, _)| name.clone()).collect()
    }

    fn set(&mut self, stage: &str, status: Status) {
        if let Some(stage) = self.stages.get_mut(stage) {
            stage.status = status;
        }
    }

    fn running(&mut self, stage: &str) -> Option<&mut Running> {
        match &mut self.stages.get_mut(stage)?.status {
            Status::Running(running) => Some(running),
            _ => None,
        }
    }
}

impl Running {
    fn observe(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Progress { done, total, unit } => {
                // What is counted anew has another pace.
                let is_new = *unit != self.unit || self.done.back().is_some_and(|(_, before)| done < before);
                if is_new {
                    self.done.clear();
                    unit.clone_into(&mut self.unit);
                }
                self.total = *total;
                self.done.push_back((now, *done));
                while self.done.len() > 2 && self.done[1].0 + WINDOW < now {
                    self.done.pop_front();
                }
            }
            Event::Metric { name, value, .. } if name == "loss" => self.loss = value.or(self.loss),
            _ => {}
        }
    }

    /// How many are done, if anything is counted.
    pub fn done(&self) -> Option<u64> {
        self.done.back().map(|(_, done)| *done)
    }

    /// The part that is done, in `0.0..=1.0`.
    pub fn fraction(&self) -> Option<f64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((self.done()? as f64 / total as f64).min(1.0))
    }

    /// How many are done a second.
    pub fn rate(&self) -> Option<f64> {
        let ((first, from), (last, to)) = (self.done.front()?, self.done.back()?);
        let took = last.saturating_sub(*first);
        (took >= SHORTEST && to > from).then(|| (to - from) as f64 / took.as_secs_f64())
    }

    fn left(&self, now: Duration) -> Option<f64> {
        let (at, done) = self.done.back()?;
        let left = self.total?.saturating_sub(*done) as f64 / self.rate()?;
        Some((left - now.saturating_sub(*at).as_secs_f64()).max(0.0))
    }
}

#[cfg(test)]
pub mod sample {
    use super::*;

    /// A stage that takes from those at these places.
    pub fn stage(upstream: &[usize], share: f64, earlier: Option<f64>) -> Stage {
        Stage { upstream: upstream.to_vec(), share, earlier, status: Status::Waiting }
    }

    pub fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    pub fn progress(done: u64, total: Option<u64>, unit: &str) -> Event {
        Event::Progress { done, total, unit: unit.into() }
    }

    pub fn loss(value: f64) -> Event {
        Event::Metric { name: "loss".into(), step: Some(1), value: Some(value) }
    }

    impl State {
        pub fn of(stages: &[(&str, Stage)]) -> Self {
            let stages = stages.iter().map(|(name, stage)| ((*name).to_owned(), stage.clone())).collect();
            Self { run: "run_3".into(), stages, looking: None }
        }

        pub fn start(&mut self, stage: &str, at: f64) {
            self.set(stage, Status::Running(Running { since: seconds(at), ..Running::default() }));
        }

        pub fn end(&mut self, stage: &str, outcome: Outcome) {
            self.set(stage, Status::Ended(outcome));
        }

        pub fn report(&mut self, stage: &str, at: f64, event: Event) {
            let execution = String::new();
            let event = RunEvent::Reported { stage: stage.into(), execution, event };
            self.observe(&event, seconds(at), |_| String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{sample::*, *};

    fn running(state: &State, stage: &str) -> Running {
        match &state.stages[stage].status {
            Status::Running(running) => running.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_follows_the_pace_of_late_and_the_clock() {
        let mut state = State::of(&[("a", stage(&[], 1.0, Some(60.0)))]);
        state.start("a", 10.0);
        assert_eq!(state.left(0, seconds(20.0)), Some(50.0), "what it took before");
        assert_eq!(state.left(0, seconds(80.0)), None, "longer than before");
        state.report("a", 20.0, progress(100, Some(1000), "reviews"));
        assert_eq!(running(&state, "a").rate(), None, "one point has no pace");
        state.report("a", 30.0, progress(200, Some(1000), "reviews"));
        assert_eq!(running(&state, "a").rate(), Some(10.0));
        assert_eq!(state.left(0, seconds(30.0)), Some(80.0));
        assert_eq!(state.left(0, seconds(35.0)), Some(75.0));
        // Twice as fast: the slow beginning is forgotten.
        for step in 1..=30 {
            state.report(
                "a",
                30.0 + f64::from(step),
                progress(200 + 20 * step as u64, Some(1000), "reviews"),
            );
        }
        assert_eq!(running(&state, "a").rate(), Some(20.0));
        // Something else is counted.
        state.report("a", 61.0, progress(1, Some(5), "tensors"));
        assert_eq!((running(&state, "a").rate(), running(&state, "a").fraction()), (None, Some(0.2)));
    }

    #[test]
    fn a_run_takes_as_long_as_its_longest_path_and_as_its_work() {
        // a feeds b and c, which feed d.
        let cores = |share| {
            State::of(&[
                ("a", stage(&[], share, Some(10.0))),
                ("b", stage(&[0], share, Some(20.0))),
                ("c", stage(&[0], share, Some(30.0))),
                ("d", stage(&[1, 2], share, Some(5.0))),
            ])
        };
        let now = seconds(0.0);
        assert_eq!(cores(0.5).all_left(now), (45.0, false), "b beside c");
        assert_eq!(cores(1.0).all_left(now), (65.0, false), "one after another");
        let mut state = cores(0.5);
        state.end("a", Outcome::Cached);
        assert_eq!(state.all_left(now), (35.0, false));
        state.stages["c"].earlier = None;
        assert_eq!(state.all_left(now), (25.0, true), "of one nothing is known");
    }

    #[test]
    fn a_stage_whose_processes_have_ended_is_keeping_its_outputs() {
        let mut state = State::of(&[("a", stage(&[], 1.0, None))]);
        state.start("a", 0.0);
        state.measured(&HashMap::new());
        assert!(!running(&state, "a").is_keeping, "its process may not have begun");
        state.measured(&HashMap::from([("a".into(), 5)]));
        assert_eq!(running(&state, "a").memory, Some(5));
        state.measured(&HashMap::new());
        assert!(running(&state, "a").is_keeping);
    }
}
