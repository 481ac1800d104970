//! Event files, read by another protobuf library than none: the messages are declared again here.

use std::{collections::BTreeMap, fs};

use prost::Message;

use super::{finals, shown, steps, trained};

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", tag = "4")]
    content: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    texts: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "2")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, tag = "1")]
    size: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin: Option<Plugin>,
    #[prost(int32, tag = "4")]
    data_class: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    hparams: Option<HParams>,
}

#[derive(Clone, PartialEq, Message)]
struct HParams {
    #[prost(message, optional, tag = "3")]
    start: Option<Start>,
    #[prost(message, optional, tag = "4")]
    end: Option<End>,
}

#[derive(Clone, PartialEq, Message)]
struct Start {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Written>,
}

#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(double, optional, tag = "2")]
    number: Option<f64>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct End {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// CRC-32C bit by bit, as RFC 3720 has it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

fn unmasked(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// The records of a file, whose checksums are right.
fn records(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(unmasked(number(&file[8..12])), crc32c(&file[..8]));
        let record = &file[12..12 + length];
        assert_eq!(unmasked(number(&file[12 + length..16 + length])), crc32c(record));
        events.push(Event::decode(record).unwrap());
        file = &file[16 + length..];
    }
    events
}

/// The event file of run 1, exported to a folder of its own.
fn written(folder: &str) -> Vec<u8> {
    trained().pipe(&["export", "run_1", "--to", "tensorboard", "--out", folder]).success();
    let files = trained().files(folder);
    let [file] = files.as_slice() else { panic!("one file, not {files:?}") };
    assert!(file.parent().unwrap().ends_with("run_1"));
    assert!(file.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));
    fs::read(file).unwrap()
}

fn exported(folder: &str) -> Vec<Event> {
    records(&written(folder))
}

fn values(events: &[Event]) -> Vec<(i64, &Value)> {
    let summaries = events.iter().filter_map(|event| Some((event.step, event.summary.as_ref()?)));
    summaries.flat_map(|(step, summary)| summary.value.iter().map(move |value| (step, value))).collect()
}

fn of_plugin<'a>(values: &[(i64, &'a Value)], plugin: &str) -> Vec<(i64, &'a Value)> {
    let name = |value: &Value| Some(value.metadata.as_ref()?.plugin.as_ref()?.name.clone());
    values.iter().copied().filter(|(_, value)| name(value).as_deref() == Some(plugin)).collect()
}

#[test]
fn scalars_in_event_files_are_the_values_that_show_tells_and_every_step() {
    let events = exported("tb-scalars");
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    assert!(events.iter().all(|event| event.wall_time > 1e9));
    let values = values(&events);
    let scalars = |tag: &str| -> Vec<(i64, f32)> {
        let tagged = values.iter().filter(|(_, value)| value.tag == tag);
        tagged.map(|(step, value)| (*step, value.simple_value.unwrap())).collect()
    };
    for (stage, metric, value) in finals(&shown(trained(), "run_1")) {
        let plain = scalars(&format!("{stage}/{metric}"));
        let ends = scalars(&format!("{stage}/{metric}/final"));
        let [(0, written)] = (if ends.is_empty() { &plain } else { &ends }).as_slice() else {
            panic!("{stage}/{metric}: {plain:?} {ends:?}")
        };
        let same = value.map_or(written.is_nan(), |value| (value as f32).to_bits() == written.to_bits());
        assert!(same, "{stage}/{metric}: {written} for {value:?}");
    }
    let told: Vec<(i64, f32)> =
        steps(trained(), "lora.loss").into_iter().map(|(step, value)| (step as i64, value as f32)).collect();
    assert_eq!(scalars("lora/loss"), told);
}

#[test]
fn histograms_in_event_files_have_their_bins_and_the_pipeline_its_text() {
    let events = exported("tb-histograms");
    let values = values(&events);
    let histograms = of_plugin(&values, "histograms");
    let told: i64 = trained().ask("SELECT count(*) FROM histogram WHERE run = 1");
    assert_eq!(histograms.len() as i64, told);
    let database = rusqlite::Connection::open(trained().path("runs.db")).unwrap();
    for (step, value) in histograms {
        let tensor = value.tensor.as_ref().unwrap();
        let sizes: Vec<i64> = tensor.shape.as_ref().unwrap().dim.iter().map(|dim| dim.size).collect();
        let numbers: Vec<f64> =
            tensor.content.chunks(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!((tensor.dtype, sizes), (2, vec![numbers.len() as i64 / 3, 3]));
        let (edges, counts): (String, String) = database
            .query_row(
                "SELECT edges, counts FROM histogram WHERE run = 1 AND metric = ? AND step IS ?",
                (value.tag.replacen('/', ".", 1), step),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let (edges, counts): (Vec<f64>, Vec<f64>) =
            (serde_json::from_str(&edges).unwrap(), serde_json::from_str(&counts).unwrap());
        let bins = edges.windows(2).zip(counts).flat_map(|(edges, count)| [edges[0], edges[1], count]);
        assert_eq!(numbers, bins.collect::<Vec<_>>(), "{}", value.tag);
    }
    let texts = of_plugin(&values, "text");
    let text = String::from_utf8(texts[0].1.tensor.as_ref().unwrap().texts[0].clone()).unwrap();
    assert!(text.starts_with("```yaml\n") && text.contains("kind: lora\n"), "{text}");
}

#[test]
fn hyper_parameters_in_event_files_are_the_parameters_of_the_run() {
    let events = exported("tb-hparams");
    let values = values(&events);
    let hparams = of_plugin(&values, "hparams");
    let data = |value: &Value| value.metadata.clone().unwrap().plugin.unwrap().hparams.unwrap();
    let [(_, start), (_, end)] = hparams.as_slice() else { panic!("a start and an end") };
    assert_eq!(start.tag, "_hparams_/session_start_info");
    let written = data(start).start.unwrap().hparams;
    assert_eq!(written["lora.rank"].number, Some(8.0));
    assert_eq!(written["seed"].number, Some(1.0));
    assert_eq!(written["gpt2.init"].text.as_deref(), Some("random"));
    assert_eq!((end.tag.as_str(), data(end).end.unwrap().status), ("_hparams_/session_end_info", 1));
}

#[test]
fn a_run_that_is_exported_again_replaces_its_event_file() {
    let first = written("tb-again");
    assert!(written("tb-again") == first, "one file, and the same");
}
