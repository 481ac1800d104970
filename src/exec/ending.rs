//! Ends the processes of a stage when the run stops or their time is up.
//!
//! They are asked first and killed if they do not end; with the leader of their group ends
//! what it started.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Exit, Launch, Stop};

/// How long processes may take to end once they were asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Watches over the process group of one stage; what is left of it is killed with this value.
pub(super) struct Ending<'a> {
    stop: &'a Stop,
    stage: &'a str,
    until: Option<Instant>,
    group: Option<Pid>,
    asked: Option<(Instant, Exit)>,
}

impl<'a> Ending<'a> {
    /// Starts the clock of the stage of `launch`.
    pub fn new(stop: &'a Stop, launch: &'a Launch<'_>) -> Self {
        // A limit beyond the end of the clock is none.
        let until = launch.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { stop, stage: &launch.job.stage, until, group: None, asked: None }
    }

    /// The group has started.
    pub fn watch(&mut self, group: Pid) {
        self.stop.add(self.stage, group);
        self.group = Some(group);
    }

    /// Says once that and why the group has to end; it is for the caller to ask it to. Kills it
    /// if it was asked long ago. To be called now and then.
    pub fn due(&mut self) -> Option<Exit> {
        self.group?;
        if let Some((asked, _)) = self.asked {
            if asked.elapsed() > GRACE {
                self.send(Signal::KILL);
            }
            return None;
        }
        let why = if self.stop.is_requested() {
            Exit::Stopped
        } else if self.until.is_some_and(|until| Instant::now() >= until) {
            Exit::TimedOut
        } else {
            return None;
        };
        self.asked = Some((Instant::now(), why));
        Some(why)
    }

    /// Why the group was made to end, if it was: asked to, or killed before it could be asked.
    pub fn reason(&self) -> Option<Exit> {
        self.asked.map(|(_, why)| why).or_else(|| self.stop.is_killed().then_some(Exit::Stopped))
    }

    /// Sends a signal to the whole group; it may have ended already.
    pub fn send(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Ending<'_> {
    /// What the leader left running in its group would write into the next attempt.
    fn drop(&mut self) {
        self.send(Signal::KILL);
        if let Some(group) = self.group {
            self.stop.remove(group);
        }
    }
}
