//! Kind `fetch` and the download behind it, against a server on this machine.

mod common;

use std::{
    cell::RefCell,
    fmt::Display,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use common::lab::{Lab, kind, problems, sha256};
use pipe_stages::{
    contract::{Event, StageError},
    download::{Download, Listener},
};
use serde_json::json;

/// A server that answers its connections by `script`, one closure call each, then refuses.
struct Server {
    url: String,
    /// The `range` header of each request; empty where there was none.
    ranges: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(mut script: impl FnMut(usize, Option<u64>, &mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/data", listener.local_addr().unwrap());
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                let mut range = String::new();
                for line in BufReader::new(&stream).lines() {
                    let line = line.unwrap().to_ascii_lowercase();
                    if let Some(value) = line.strip_prefix("range: ") {
                        value.clone_into(&mut range);
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                let start = range.strip_prefix("bytes=").and_then(|text| text.strip_suffix('-'));
                seen.lock().unwrap().push(range.clone());
                script(index, start.map(|text| text.parse().unwrap()), &mut stream);
            }
        });
        Self { url, ranges }
    }

    fn ranges(&self) -> Vec<String> {
        self.ranges.lock().unwrap().clone()
    }
}

fn head(stream: &mut TcpStream, status: &str, headers: &[String]) {
    write!(stream, "HTTP/1.1 {status}\r\nconnection: close\r\n").unwrap();
    for header in headers {
        write!(stream, "{header}\r\n").unwrap();
    }
    write!(stream, "\r\n").unwrap();
}

/// Answers the bytes from `start` on, as a server with ranges does, and stops after `limit`.
fn answer(stream: &mut TcpStream, body: &[u8], start: Option<u64>, limit: usize) {
    let from = start.unwrap_or(0) as usize;
    let length = format!("content-length: {}", body.len() - from);
    if start.is_none() {
        head(stream, "200 OK", &[length]);
    } else {
        let range = format!("content-range: bytes {from}-{}/{}", body.len() - 1, body.len());
        head(stream, "206 Partial Content", &[length, range]);
    }
    stream.write_all(&body[from..from.saturating_add(limit).min(body.len())]).unwrap();
}

fn body() -> Vec<u8> {
    (0..200_000u32).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[derive(Default)]
struct Notes {
    progress: RefCell<Vec<(u64, Option<u64>)>>,
    lines: RefCell<Vec<String>>,
}

impl Listener for Notes {
    fn progress(&self, done: u64, total: Option<u64>) {
        self.progress.borrow_mut().push((done, total));
    }
    fn log(&self, line: &dyn Display) {
        self.lines.borrow_mut().push(line.to_string());
    }
}

fn download(lab: &Lab, server: &Server, retries: u32) -> (Result<Vec<u8>, StageError>, Notes) {
    let notes = Notes::default();
    let download = Download {
        url: server.url.clone(),
        sha256: sha256(&body()),
        retries,
        timeout: Duration::from_secs(5),
        backoff: Duration::ZERO,
    };
    let out = lab.path("out");
    let result = download.fetch(&lab.path("checkpoint"), &out, &notes);
    (result.map(|()| fs::read(out).unwrap()), notes)
}

fn kept(lab: &Lab) -> Option<u64> {
    fs::metadata(lab.path("checkpoint/partial")).ok().map(|file| file.len())
}

#[test]
fn a_file_arrives_with_its_progress() {
    let lab = Lab::new();
    let server = Server::new(|_, start, stream| answer(stream, &body(), start, usize::MAX));
    let with = json!({ "url": server.url, "sha256": sha256(&body()).to_uppercase() });
    let ran = lab.run("fetch", with, &[]).unwrap();
    assert!(fs::read(ran.output("file")).unwrap() == body());
    let last = Event::Progress { done: 200_000, total: Some(200_000), unit: "bytes".into() };
    assert!(ran.events.contains(&last), "{:?}", ran.events);
    assert_eq!(kept(&lab), None);
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let lab = Lab::new();
    let server = Server::new(|index, start, stream| {
        answer(stream, &body(), start, if index == 0 { 150_000 } else { usize::MAX });
    });
    let (result, notes) = download(&lab, &server, 1);
    assert!(result.unwrap() == body());
    assert_eq!(server.ranges(), ["", "bytes=150000-"]);
    assert_eq!(notes.progress.borrow().last(), Some(&(200_000, Some(200_000))));
    assert!(notes.lines.borrow()[0].ends_with("after 150000 bytes: trying again in 0 s"));
}

#[test]
fn a_later_attempt_goes_on_where_a_killed_one_ended() {
    let lab = Lab::new();
    let server = Server::new(|index, start, stream| {
        answer(stream, &body(), start, if index == 0 { 99_999 } else { usize::MAX });
    });
    download(&lab, &server, 0).0.unwrap_err();
    assert_eq!(kept(&lab), Some(99_999));
    assert!(download(&lab, &server, 0).0.unwrap() == body());
    assert_eq!(server.ranges(), ["", "bytes=99999-"]);
}

#[test]
fn many_cuts_are_survived_while_each_brings_something_new() {
    let lab = Lab::new();
    let server = Server::new(|_, start, stream| answer(stream, &body(), start, 21_000));
    assert!(download(&lab, &server, 1).0.unwrap() == body());
    assert_eq!(server.ranges().len(), 10);
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start() {
    let lab = Lab::new();
    let server = Server::new(|index, _, stream| {
        answer(stream, &body(), None, if index == 0 { 70_000 } else { usize::MAX });
    });
    assert!(download(&lab, &server, 1).0.unwrap() == body());
    assert_eq!(server.ranges(), ["", "bytes=70000-"]);
}

#[test]
fn a_whole_file_left_by_a_killed_attempt_is_kept_on_416() {
    let lab = Lab::new();
    let server = Server::new(|_, start, stream| {
        assert_eq!(start, Some(200_000));
        head(stream, "416 Range Not Satisfiable", &["content-range: bytes */200000".into()]);
    });
    fs::write(lab.path("checkpoint/partial"), body()).unwrap();
    fs::write(lab.path("checkpoint/partial.url"), &server.url).unwrap();
    assert!(download(&lab, &server, 0).0.unwrap() == body());
}

#[test]
fn a_partial_file_that_is_too_long_or_of_other_content_is_dropped() {
    for left in [vec![0; 300_000], vec![0; 1_000]] {
        let lab = Lab::new();
        let server = Server::new(|_, start, stream| match start {
            Some(start) if start > 200_000 => {
                head(stream, "416 Range Not Satisfiable", &["content-range: bytes */200000".into()]);
            }
            _ => answer(stream, &body(), start, usize::MAX),
        });
        fs::write(lab.path("checkpoint/partial"), &left).unwrap();
        fs::write(lab.path("checkpoint/partial.url"), &server.url).unwrap();
        assert!(download(&lab, &server, 1).0.unwrap() == body());
        assert_eq!(server.ranges(), [format!("bytes={}-", left.len()), String::new()]);
    }
}

#[test]
fn a_partial_file_from_another_address_is_dropped() {
    let lab = Lab::new();
    let server = Server::new(|_, start, stream| answer(stream, &body(), start, usize::MAX));
    fs::write(lab.path("checkpoint/partial"), &body()[..5]).unwrap();
    fs::write(lab.path("checkpoint/partial.url"), "http://elsewhere/data").unwrap();
    assert!(download(&lab, &server, 0).0.unwrap() == body());
    assert_eq!(server.ranges(), [""]);
}

#[test]
fn a_wrong_hash_names_both_and_keeps_nothing() {
    let lab = Lab::new();
    let server = Server::new(|_, start, stream| answer(stream, b"another file", start, usize::MAX));
    let err = download(&lab, &server, 3).0.unwrap_err();
    let (found, wanted) = (sha256(b"another file"), sha256(&body()));
    assert_eq!(err.to_string(), format!("`{}` has sha256 `{found}`, wanted `{wanted}`", server.url));
    assert_eq!((kept(&lab), lab.path("out").exists()), (None, false));
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_missing_page_fails_at_once() {
    let lab = Lab::new();
    let server = Server::new(|_, _, stream| head(stream, "404 Not Found", &["content-length: 0".into()]));
    let err = download(&lab, &server, 5).0.unwrap_err();
    let wanted = format!("cannot download `{}`: the server answered 404 Not Found", server.url);
    assert_eq!(err.to_string(), wanted);
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_busy_server_is_asked_again() {
    let lab = Lab::new();
    let server = Server::new(|index, start, stream| match index {
        0 => head(stream, "503 Service Unavailable", &["content-length: 0".into()]),
        1 => {}
        _ => answer(stream, &body(), start, usize::MAX),
    });
    assert!(download(&lab, &server, 2).0.unwrap() == body());
    assert_eq!(server.ranges().len(), 3);
}

#[test]
fn an_unreachable_address_is_a_clear_error_with_help() {
    let lab = Lab::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}/data");
    let with = json!({ "url": url, "sha256": "0".repeat(64), "retries": 0 });
    let err = lab.run("fetch", with, &[]).err().unwrap();
    assert_eq!(err.to_string(), format!("cannot download `{url}` (1 try)"));
    assert!(err.causes()[0].contains("refused"), "{:?}", err.causes());
    assert!(err.help_text().unwrap().contains("check the address and the network"));
}

#[test]
fn address_and_hash_are_checked_before_anything_runs() {
    assert_eq!(
        problems("fetch", json!({ "url": "file:///x", "sha256": "c40f", "timeout": 0 })),
        [
            "url: `file:///x` is no http or https address",
            "sha256: `c40f` is no SHA-256: 64 hexadecimal digits",
            "timeout: a timeout of 0 seconds never connects",
        ]
    );
    assert_eq!(problems("fetch", json!({ "url": "https://a/b" })), [": missing field `sha256`"]);
}

#[test]
fn only_the_hash_decides_what_is_fetched() {
    let hashed = |url: &str, sha256: String| {
        kind("fetch").resolve(json!({ "url": url, "sha256": sha256 })).unwrap().hashed
    };
    assert_eq!(hashed("https://a/b", "ab".repeat(32)), json!({ "sha256": "ab".repeat(32) }));
    assert_eq!(hashed("https://a/b", "ab".repeat(32)), hashed("http://mirror/b", "AB".repeat(32)));
}
