//! Runs stages in this process, for tests of the engine.

use pipe_stages::contract::{Event, StageCx, StageError, StageKind};

use super::{ExecError, Executor, Exit, Finished, Launch, Stop, tail::Tail};

/// Runs the given kinds on the calling thread.
#[derive(Debug)]
pub struct InlineExecutor {
    kinds: &'static [StageKind],
}

impl InlineExecutor {
    /// An executor of `kinds`.
    pub fn new(kinds: &'static [StageKind]) -> Self {
        Self { kinds }
    }
}

impl Executor for InlineExecutor {
    fn execute(
        &self,
        launch: &Launch<'_>,
        _: &Stop,
        events: &mut dyn FnMut(Event),
    ) -> Result<Finished, ExecError> {
        let job = launch.job;
        let code = match run(self.kinds, launch) {
            Ok(()) => 0,
            Err(_) => 1,
        };
        Tail::new(&job.events).read(events);
        Ok(Finished { exit: Exit::Code(code), cpu: 0.0, peak_memory: 0 })
    }
}

fn run(kinds: &[StageKind], launch: &Launch<'_>) -> Result<(), StageError> {
    let mut cx = StageCx::new(launch.job)?;
    let kind = kinds.iter().find(|kind| kind.name == launch.job.kind).expect("a kind of the pipeline");
    let result = kind.run(launch.job.params.clone(), &mut cx);
    cx.finish(result)
}
