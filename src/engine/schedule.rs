//! Runs what has to run, as much side by side as fits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, Scope},
    time::Duration,
};

use jiff::Timestamp;
use pipe_stages::contract::PortType;

use super::{
    Begun, Capacity, EngineError, Explainer, Request, RunEvent, Summary, TooFewGpus, Tools,
    decide::{Decided, Decision, Known, decide},
    perform::{Ending, Notice, Performed, Task, perform, told_error},
    repeat::{NextRun, Repeat},
};
use crate::{
    cache::{CacheError, Hit, Mark, Outside},
    digest::{ActionKey, Digest},
    names::{RunId, base},
    pipeline::{Source, StageSpec},
    record::{Artifact, Outcome, Reason, RunStatus, StageRecord},
};

/// When nothing has happened for this long, observers are told so.
const IDLE: Duration = Duration::from_millis(250);

/// Runs the wanted stages, as the run `begun`, and tells `observe` of everything, from this thread.
///
/// A failure lets running stages finish and starts no more: nothing computed is lost.
pub fn run(
    request: &Request<'_>,
    begun: Begun,
    tools: &Tools<'_>,
    explainer: &Explainer<'_>,
    observe: &mut dyn FnMut(RunEvent),
) -> Result<Summary, EngineError> {
    let (sender, messages) = mpsc::channel();
    thread::scope(|scope| {
        let mut schedule = Schedule::new(request, begun, tools, explainer, observe);
        schedule.run(scope, &sender, &messages)
    })
}

/// What a performing thread sends back.
type Message = (String, Said);

enum Said {
    Notice(Notice),
    Ended(Performed),
}

/// A stage that must run and waits for room.
struct Ready {
    stage: String,
    decided: Decided,
    reasons: Vec<Reason>,
}

/// A stage that is being executed, and stages of the same key that wait for it.
struct Running {
    key: ActionKey,
    share: Capacity,
    gpus: Vec<String>,
    reasons: Vec<Reason>,
    /// When it began: the wait for room is not its own, its retries are.
    started: Timestamp,
    has_begun: bool,
    outside: Vec<(Source, Digest)>,
    followers: Vec<Ready>,
}

struct Schedule<'r, 'o> {
    request: &'r Request<'r>,
    begun: Begun,
    tools: &'r Tools<'r>,
    explainer: &'r Explainer<'r>,
    observe: &'o mut dyn FnMut(RunEvent),
    /// The wanted stages and, unless they are all, those whose results they need.
    order: Vec<String>,
    /// Stages outside of the selection that have no result.
    lost: BTreeSet<String>,
    /// How many stages without a result each undecided stage takes from.
    missing: HashMap<&'r str, usize>,
    /// The stages that take from each stage, by their place in the order.
    takers: HashMap<&'r str, Vec<usize>>,
    /// Undecided stages whose inputs are all known, by their place in the order.
    decidable: BTreeSet<usize>,
    ready: VecDeque<Ready>,
    running: HashMap<String, Running>,
    known: Known,
    outcomes: BTreeMap<String, Outcome>,
    /// The state of the cache before the first lookup.
    mark: Mark,
    next_run: NextRun,
    free: Capacity,
    /// The GPUs that no running stage has.
    free_gpus: Vec<String>,
    is_cache_writable: bool,
    failed: Option<String>,
}

impl<'r, 'o> Schedule<'r, 'o> {
    fn new(
        request: &'r Request<'r>,
        begun: Begun,
        tools: &'r Tools<'r>,
        explainer: &'r Explainer<'r>,
        observe: &'o mut dyn FnMut(RunEvent),
    ) -> Self {
        let order = request.considered();
        let mut missing = HashMap::new();
        let mut takers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, stage) in order.iter().enumerate() {
            let spec = &request.pipeline.stages[stage];
            let upstream = spec.upstream();
            missing.insert(spec.name.as_str(), upstream.len());
            upstream.into_iter().for_each(|source| takers.entry(source).or_default().push(at));
        }
        let decidable = (0..order.len()).filter(|at| missing[order[*at].as_str()] == 0).collect();
        Self {
            request,
            begun,
            tools,
            explainer,
            observe,
            order,
            lost: BTreeSet::new(),
            missing,
            takers,
            decidable,
            ready: VecDeque::new(),
            running: HashMap::new(),
            known: Known::new(),
            outcomes: BTreeMap::new(),
            mark: tools.cache.mark(),
            next_run: NextRun::default(),
            free: request.capacity,
            free_gpus: request.gpus.clone(),
            is_cache_writable: false,
            failed: None,
        }
    }

    fn run<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message>,
        messages: &Receiver<Message>,
    ) -> Result<Summary, EngineError>
    where
        'r: 'scope,
    {
        loop {
            let is_failing = self.failed.is_some() && !self.request.keep_going;
            let may_start = !is_failing && !self.tools.stop.is_requested();
            if may_start {
                self.decide_all()?;
                self.start_what_fits(scope, sender);
            }
            if self.running.is_empty() {
                break;
            }
            match messages.recv_timeout(IDLE) {
                Ok((stage, Said::Notice(notice))) => self.pass_on(stage, notice),
                Ok((stage, Said::Ended(performed))) => self.ended(&stage, performed),
                Err(RecvTimeoutError::Timeout) => (self.observe)(RunEvent::Idle),
                Err(RecvTimeoutError::Disconnected) => unreachable!("a running stage has a sender"),
            }
        }
        self.give_up_on_the_rest();
        let mut summary = Summary::of(self.outcomes.values());
        let goes_on = self.failed.is_none() || self.request.keep_going;
        summary.status = match () {
            () if self.tools.stop.is_requested() && summary.skipped > 0 && goes_on => RunStatus::Interrupted,
            () if self.failed.is_some() || summary.skipped > 0 => RunStatus::Failed,
            () => RunStatus::Done,
        };
        summary.tables = self.tables();
        if self.next_run.finds_all(self.request.pipeline.stages.len()) {
            let next = std::mem::take(&mut self.next_run);
            let tables = summary.tables.clone();
            Repeat::keep(self.request, self.begun, self.tools, &self.order, next, tables, self.mark);
        }
        Ok(summary)
    }

    /// The tables of stages with a result that no other stage of this run takes from; not those of a matrix,
    /// which are too many to read one below the other.
    fn tables(&self) -> Vec<Digest> {
        let is_done = |stage: &&String| self.outcomes.contains_key(*stage);
        let is_taken = |stage: &&String| {
            let mut takers = self.takers.get(stage.as_str()).into_iter().flatten();
            takers.any(|at| is_done(&&self.order[*at]))
        };
        let last =
            self.order.iter().filter(is_done).filter(|stage| !is_taken(stage) && base(stage) == **stage);
        let outputs = last.filter_map(|stage| self.known.get(stage)).flatten();
        outputs.filter(|output| output.port_type == PortType::Table).map(|output| output.digest).collect()
    }

    /// Looks up every stage whose inputs are known, until nothing more follows.
    fn decide_all(&mut self) -> Result<(), EngineError> {
        while !self.tools.stop.is_requested() {
            let Some(at) = self.decidable.pop_first() else { break };
            self.decide_one(self.order[at].clone())?;
        }
        self.tools.cache.end_lookups();
        Ok(())
    }

    /// Notes the outputs of a stage: those that take from it come nearer to being decided.
    fn has_result(&mut self, stage: &'r str, outputs: Vec<Artifact>) {
        self.known.insert(stage.to_owned(), outputs);
        for at in self.takers.get(stage).into_iter().flatten() {
            let missing = self.missing.get_mut(self.order[*at].as_str()).expect("every stage is counted");
            *missing -= 1;
            if *missing == 0 {
                self.decidable.insert(*at);
            }
        }
    }

    fn decide_one(&mut self, stage: String) -> Result<(), EngineError> {
        let spec = &self.request.pipeline.stages[&stage];
        let looked_at = Timestamp::now();
        if spec.outside().next().is_some() {
            (self.observe)(RunEvent::Looking { stage: stage.clone() });
        }
        let decided = decide(self.request, self.tools, self.explainer, spec, &self.known);
        if matches!(decided, Err(CacheError::Halted { .. })) {
            // The run ends: this stage is one that was not reached.
            return Ok(());
        }
        if !self.request.selects(&stage) {
            match decided {
                Ok((_, Decision::Cached(hit))) => {
                    self.has_result(&spec.name, hit.outputs);
                }
                _ => {
                    self.lost.insert(stage);
                }
            }
            return Ok(());
        }
        match decided {
            Err(err) => self.cannot_decide(spec, looked_at, &err),
            Ok((Decided { key, outside, .. }, Decision::Cached(hit))) => {
                self.next_run.note(&spec.name, key, outside_digests(spec, &outside), &hit);
                self.satisfied(spec, key, looked_at, hit);
            }
            Ok((decided, Decision::Run(reasons))) => {
                let (wanted, given) = (self.request.capacity.share(spec).gpus, self.request.capacity.gpus);
                if wanted > given {
                    let error = TooFewGpus { stage, wanted, given };
                    self.cannot_decide(spec, looked_at, &error);
                    return Ok(());
                }
                if !self.is_cache_writable {
                    self.tools.cache.make_writable().map_err(EngineError::Cache)?;
                    self.is_cache_writable = true;
                    if !self.mark.is_known() {
                        self.mark = self.tools.cache.mark();
                    }
                }
                self.ready.push_back(Ready { stage, decided, reasons });
            }
        }
        Ok(())
    }

    /// Starts ready stages in order, passing over those that do not fit beside what runs.
    fn start_what_fits<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, sender: &Sender<Message>)
    where
        'r: 'scope,
    {
        let mut passed_over = Vec::new();
        // Every stage takes a core: where none is free, none has to be looked at.
        while self.free.cpus > 0
            && let Some(ready) = self.ready.pop_front()
        {
            let twin = self.running.values_mut().find(|running| running.key == ready.decided.key);
            if let Some(twin) = twin {
                twin.followers.push(ready);
                continue;
            }
            let spec = &self.request.pipeline.stages[&ready.stage];
            let share = self.request.capacity.share(spec);
            if !self.free.take(share) {
                passed_over.push(ready);
                continue;
            }
            let gpus = self.free_gpus.drain(..share.gpus).collect::<Vec<_>>();
            let running = Running {
                key: ready.decided.key,
                share,
                gpus: gpus.clone(),
                reasons: ready.reasons,
                started: Timestamp::now(),
                has_begun: false,
                outside: outside_digests(spec, &ready.decided.outside),
                followers: Vec::new(),
            };
            self.running.insert(ready.stage.clone(), running);
            let task = Task {
                spec,
                places: &self.request.pipeline.places,
                decided: ready.decided,
                run: self.begun.run,
                device: share.device,
                threads: share.cpus,
                gpus,
                is_forced: self.request.forces(&ready.stage),
            };
            let (tools, sender, stage) = (self.tools, sender.clone(), ready.stage);
            scope.spawn(move || {
                // The scheduler outlives its stages: it waits for each of them.
                let send = |said| sender.send((stage.clone(), said)).expect("the scheduler listens");
                let performed = perform(&task, tools, &|notice| send(Said::Notice(notice)));
                send(Said::Ended(performed));
            });
        }
        passed_over.into_iter().rev().for_each(|ready| self.ready.push_front(ready));
    }

    fn pass_on(&mut self, stage: String, notice: Notice) {
        (self.observe)(match notice {
            Notice::Waiting(holder) => RunEvent::Waiting { stage, holder },
            Notice::Reported(execution, event) => RunEvent::Reported { stage, execution, event },
            Notice::Retrying { retry, of, error } => RunEvent::Retrying { stage, retry, of, error },
            Notice::Started(execution) => {
                let running = self.running.get_mut(&stage).expect("only running stages say something");
                if !running.has_begun {
                    (running.started, running.has_begun) = (execution.started, true);
                }
                let reasons = running.reasons.clone();
                RunEvent::Started { stage, execution, reasons }
            }
        });
    }

    fn ended(&mut self, stage: &str, performed: Performed) {
        let running = self.running.remove(stage).expect("only running stages end");
        self.free.give_back(running.share);
        self.free_gpus.extend(running.gpus);
        let place = |gpu: &String| self.request.gpus.iter().position(|other| other == gpu);
        self.free_gpus.sort_by_key(place);
        let spec = &self.request.pipeline.stages[stage];
        let mut record = record(spec, Outcome::Ran, running.started);
        record.key = Some(running.key);
        record.reasons = running.reasons;
        if performed.attempts > 1 {
            record.reasons.push(Reason::Retried { attempts: performed.attempts });
        }
        record.log = performed.log;
        let mut satisfied_by = None;
        match performed.ending {
            Ending::Ran { execution, differs } => {
                record.execution = Some(execution.id.clone());
                // Of several attempts the one counts that gave the result.
                record.started = execution.started;
                let hit = Hit::of(&execution);
                self.next_run.note(&spec.name, running.key, running.outside, &hit);
                satisfied_by = Some(hit);
                self.has_result(&spec.name, execution.outputs.clone());
                self.finish(record, Some(execution), differs);
            }
            Ending::Satisfied(mut hit) => {
                hit.run = (self.explainer.computed_in)(running.key, &hit);
                self.satisfied(spec, running.key, running.started, hit.clone());
                satisfied_by = Some(hit);
            }
            Ending::Failed { exit_code, error, .. } => {
                record.outcome = Outcome::Failed;
                record.exit_code = exit_code;
                record.error = Some(error);
                self.failed.get_or_insert_with(|| stage.to_owned());
                self.finish(record, None, Vec::new());
            }
            Ending::Interrupted => {
                record.outcome = Outcome::Interrupted;
                self.finish(record, None, Vec::new());
            }
        }
        // Where there is no result, each follower has to try for itself, if the run goes on.
        match satisfied_by {
            Some(hit) => {
                for follower in running.followers {
                    let spec = &self.request.pipeline.stages[&follower.stage];
                    let outside = outside_digests(spec, &follower.decided.outside);
                    self.next_run.note(&spec.name, running.key, outside, &hit);
                    self.satisfied(spec, running.key, Timestamp::now(), hit.clone());
                }
            }
            None => self.ready.extend(running.followers),
        }
    }

    fn satisfied(&mut self, spec: &'r StageSpec, key: ActionKey, since: Timestamp, hit: Hit) {
        let mut record = record(spec, Outcome::Cached, since);
        record.key = Some(key);
        record.execution = Some(hit.execution);
        record.reasons = self.without_effect(spec, hit.run);
        record.reasons.push(Reason::Satisfied { since: hit.run, device: hit.device });
        self.has_result(&spec.name, hit.outputs);
        self.finish(record, None, Vec::new());
    }

    /// Says of a stage that has the result of the run `since` which stages before it ran nevertheless.
    fn without_effect(&self, spec: &StageSpec, since: Option<RunId>) -> Vec<Reason> {
        if since == Some(self.begun.run) {
            // A twin of this run ran on the same bytes: they may be new.
            return Vec::new();
        }
        let ran = |stage: &&str| self.outcomes.get(*stage) == Some(&Outcome::Ran);
        let stages: Vec<String> = spec.upstream().into_iter().filter(ran).map(str::to_owned).collect();
        if stages.is_empty() { Vec::new() } else { vec![Reason::SameBytes { stages }] }
    }

    fn cannot_decide(&mut self, spec: &StageSpec, since: Timestamp, error: &dyn std::error::Error) {
        let mut record = record(spec, Outcome::Failed, since);
        record.error = Some(told_error(error));
        self.failed.get_or_insert_with(|| spec.name.clone());
        self.finish(record, None, Vec::new());
    }

    /// Records the stages that this run did not reach, and says for each what it lacks.
    fn give_up_on_the_rest(&mut self) {
        // What each stage without a result is to others; the order puts needs first.
        let mut lacks: HashMap<String, Reason> = HashMap::new();
        for stage in self.order.clone() {
            let spec = &self.request.pipeline.stages[&stage];
            let lacking = spec.upstream().into_iter().find_map(|needed| lacks.get(needed).cloned());
            let reason = match self.outcomes.get(&stage) {
                Some(Outcome::Failed) => Some(Reason::Blocked { by: stage.clone() }),
                Some(_) => None,
                None if self.request.selects(&stage) => {
                    let mut record = record(spec, Outcome::Skipped, Timestamp::now());
                    let failed = self.failed.clone().filter(|_| !self.request.keep_going);
                    let not_started = failed.map(|failed| Reason::NotStarted { failed });
                    record.reasons.extend(lacking.clone().or(not_started));
                    self.finish(record, None, Vec::new());
                    lacking
                }
                None if self.lost.contains(&stage) => Some(Reason::NotSelected { stage: stage.clone() }),
                None => lacking,
            };
            lacks.extend(reason.map(|reason| (stage, reason)));
        }
    }

    fn finish(
        &mut self,
        mut record: StageRecord,
        execution: Option<Box<crate::record::Execution>>,
        differs: Vec<String>,
    ) {
        record.duration = Timestamp::now().duration_since(record.started).as_secs_f64();
        self.outcomes.insert(record.stage.clone(), record.outcome);
        (self.observe)(RunEvent::Finished { record: Box::new(record), execution, differs });
    }
}

/// What `spec` takes from outside, with the digests that it was decided by.
fn outside_digests(spec: &StageSpec, outside: &[(String, Outside)]) -> Vec<(Source, Digest)> {
    outside.iter().map(|(port, outside)| (spec.inputs[port].clone(), outside.digest)).collect()
}

fn record(spec: &StageSpec, outcome: Outcome, started: Timestamp) -> StageRecord {
    StageRecord {
        stage: spec.name.clone(),
        kind: spec.kind.name.to_owned(),
        kind_version: spec.kind.version,
        seed: spec.seed,
        params: spec.params.clone(),
        key: None,
        outcome,
        execution: None,
        reasons: Vec::new(),
        started,
        duration: 0.0,
        exit_code: None,
        error: None,
        log: String::new(),
    }
}
