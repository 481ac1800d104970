//! Runs as event files of TensorBoard.
//!
//! Scalars are written as `simple_value`, which every version and every other reader knows; they
//! are 32-bit. Histograms keep their bins: a tensor of `[left, right, count]`, the form of the
//! plugin since TensorBoard 2. Parameters go to the HParams plugin, the pipeline to the text plugin.
//! The numbers below are those of TensorFlow's and TensorBoard's `.proto` files.

use jiff::Timestamp;
use serde_json::Value;

use super::{Measured, Subject, protobuf::Message, tfrecord, written};
use crate::{fingerprint::leaves, record::Histogram, runs::State};

/// `DataType` of TensorFlow.
const FLOAT: u64 = 1;
const DOUBLE: u64 = 2;
const STRING: u64 = 7;
/// `DataClass` of summaries whose value is a tensor.
const TENSOR: u64 = 2;

/// The name of a run's event file below the log folder; the folder is what TensorBoard calls the run.
pub fn event_file(subject: &Subject) -> String {
    let info = &subject.run.info;
    format!("{}/events.out.tfevents.{:010}.{}", info.run, info.started.as_second(), info.run)
}

/// The bytes of the event file of a run.
pub fn events(subject: &Subject) -> Vec<u8> {
    let run = &subject.run;
    let (started, ended) = (run.info.started, run.info.ended.unwrap_or(run.info.started));
    let mut file = Vec::new();
    let mut add = |event: Message| tfrecord::append(&mut file, &event.into_bytes());
    add(at(started, 0).bytes(3, "brain.Event:2"));
    add(summary(started, 0, pipeline(&run.resolved)));
    add(summary(started, 0, session_start(subject)));
    for stage in &run.stages {
        let began = subject.began(stage);
        for it in subject.measured(stage) {
            let value = it.value.unwrap_or(f64::NAN) as f32;
            add(summary(began, it.step.unwrap_or(0), Message::new().bytes(1, tag(&it)).float(2, value)));
        }
        for it in subject.histograms(stage) {
            let tag = format!("{}/{}", stage.stage, it.name);
            add(summary(began, it.step.unwrap_or(0), histogram(&tag, it)));
        }
    }
    add(summary(ended, 0, session_end(run.info.state, ended)));
    file
}

/// An `Event` without what happened.
fn at(time: Timestamp, step: u64) -> Message {
    Message::new().double(1, seconds(time)).int(2, step)
}

fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}

/// An `Event` with a `Summary` of one `Value`.
fn summary(time: Timestamp, step: u64, value: Message) -> Message {
    at(time, step).message(5, Message::new().message(1, value))
}

/// `lora/loss`: TensorBoard shows what is before the slash as a group.
fn tag(it: &Measured<'_>) -> String {
    format!("{}/{}{}", it.stage, it.metric, if it.ends_a_series { "/final" } else { "" })
}

/// A `Value` for a plugin: a tensor of this type, shape and content.
fn for_plugin(tag: &str, plugin: &str, content: Message, tensor: Message) -> Message {
    let data = Message::new().bytes(1, plugin).message(2, content);
    let metadata = Message::new().message(1, data).int(4, TENSOR);
    Message::new().bytes(1, tag).message(9, metadata).message(8, tensor)
}

/// A `TensorProto` without its content.
fn tensor(of: u64, shape: &[usize]) -> Message {
    let dims = shape.iter().map(|size| Message::new().int(1, *size as u64));
    Message::new().int(1, of).message(2, dims.fold(Message::new(), |shape, dim| shape.message(2, dim)))
}

fn histogram(tag: &str, it: &Histogram) -> Message {
    let bins = it.edges.windows(2).zip(&it.counts);
    let content = bins.flat_map(|(edges, count)| [edges[0], edges[1], *count as f64]);
    let content: Vec<u8> = content.flat_map(f64::to_le_bytes).collect();
    for_plugin(tag, "histograms", Message::new(), tensor(DOUBLE, &[it.counts.len(), 3]).bytes(4, content))
}

/// The resolved pipeline, as a text in markdown.
fn pipeline(resolved: &Value) -> Message {
    let yaml = serde_yaml::to_string(resolved).expect("plain values serialize to YAML");
    let text = format!("```yaml\n{yaml}```\n");
    for_plugin("pipeline", "text", Message::new(), tensor(STRING, &[]).bytes(8, text))
}

/// The parameters of every stage, for the HParams plugin.
fn session_start(subject: &Subject) -> Message {
    let info = &subject.run.info;
    let mut start =
        Message::new().double(5, seconds(info.started)).message(1, entry("seed", &info.seed.into()));
    for stage in &subject.run.stages {
        for (path, value) in leaves(&stage.params) {
            start = start.message(1, entry(&format!("{}.{path}", stage.stage), &value));
        }
    }
    hparams("_hparams_/session_start_info", Message::new().message(3, start))
}

fn session_end(state: State, ended: Timestamp) -> Message {
    let status = match state {
        State::Done => 1,
        State::Failed | State::Interrupted | State::Killed => 2,
        State::Running => 3,
    };
    let end = Message::new().int(1, status).double(2, seconds(ended));
    hparams("_hparams_/session_end_info", Message::new().message(4, end))
}

/// A `Value` whose metadata is what it says; its tensor is empty.
fn hparams(tag: &str, data: Message) -> Message {
    for_plugin(tag, "hparams", data, tensor(FLOAT, &[0]))
}

/// An entry of a map from names to `google.protobuf.Value`; the plugin takes no lists.
fn entry(name: &str, value: &Value) -> Message {
    let written = match value {
        Value::Number(number) => Message::new().double(2, number.as_f64().unwrap_or(f64::NAN)),
        Value::Bool(value) => Message::new().int(4, u64::from(*value)),
        other => Message::new().bytes(3, written(other)),
    };
    Message::new().bytes(1, name).message(2, written)
}
