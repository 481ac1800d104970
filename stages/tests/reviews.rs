//! Kind `reviews`: archives and folders in the layout of aclImdb.

mod common;

use std::{fs, io::Write, path::PathBuf};

use common::{
    imdb_archive,
    lab::{Lab, Ran, problems},
};
use flate2::{Compression, write::GzEncoder};
use pipe_stages::data::{Review, read_reviews};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// Files of both splits and labels, with some that are no labelled reviews.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("aclImdb/README".to_owned(), b"about".to_vec()),
        ("aclImdb/train/unsup/0_0.txt".to_owned(), b"unlabelled".to_vec()),
        ("aclImdb/train/pos/notes.txt".to_owned(), b"no review".to_vec()),
        ("aclImdb/test/._pos/1_9.txt".to_owned(), b"no review".to_vec()),
    ];
    for split in ["train", "test"] {
        for number in [10, 9, 100, 0, 2, 33] {
            let text = |label: &str| format!("{split} {label} {number} é<br />").into_bytes();
            files.push((format!("aclImdb/{split}/neg/{number}_3.txt"), text("neg")));
            files.push((format!("aclImdb/{split}/pos/{number}_10.txt"), text("pos")));
        }
    }
    files
}

fn header(size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    header
}

fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = header(content.len());
        // Past the builder's own check, so that hostile paths can be written too.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn archive(lab: &Lab, bytes: &[u8]) -> PathBuf {
    let path = lab.path("archive");
    fs::write(&path, bytes).unwrap();
    path
}

fn run(lab: &Lab, with: Value, bytes: &[u8]) -> Result<Ran, String> {
    let path = archive(lab, bytes);
    let place = path.display().to_string();
    lab.run("reviews", with, &[("archive", &path)]).map_err(|err| err.to_string().replace(&place, "FILE"))
}

fn error(bytes: &[u8]) -> String {
    run(&Lab::new(), json!({}), bytes).expect_err("an archive that cannot be used")
}

fn ids(ran: &Ran, port: &str) -> Vec<String> {
    read_reviews(ran.output(port)).unwrap().into_iter().map(|review| review.id).collect()
}

#[test]
fn reads_id_label_rating_and_text_and_sorts_by_number() {
    let ran = run(&Lab::new(), json!({}), &gzip(&tar(&files()))).unwrap();
    let wanted: Vec<String> = ["neg", "pos"]
        .iter()
        .flat_map(|label| {
            let rating = if *label == "pos" { 10 } else { 3 };
            [0, 2, 9, 10, 33, 100].map(|number| format!("test/{label}/{number}_{rating}.txt"))
        })
        .collect();
    assert_eq!(ids(&ran, "test"), wanted);
    let first = Review {
        id: "train/neg/0_3.txt".into(),
        label: 0,
        rating: Some(3),
        text: "train neg 0 é<br />".into(),
        synthetic: false,
    };
    assert_eq!(read_reviews(ran.output("train")).unwrap()[0], first);
    for name in ["train.positive", "train.negative", "test.positive", "test.negative"] {
        assert_eq!(ran.metric(name), Some(6.0), "{name}");
    }
}

#[test]
fn writes_the_same_bytes_for_every_packing_and_order() {
    let lab = Lab::new();
    let mut backwards = files();
    backwards.reverse();
    let dotted: Vec<_> = files().into_iter().map(|(path, text)| (format!("./{path}"), text)).collect();
    let plain = tar(&files());
    let members = [gzip(&plain[..3000]), gzip(&plain[3000..])].concat();
    let with = json!({ "train": 5, "test": "all" });
    let digests = |ran: Ran| (ran.digest("train"), ran.digest("test"));
    let wanted = digests(run(&lab, with.clone(), &gzip(&tar(&files()))).unwrap());
    for bytes in [tar(&files()), gzip(&tar(&backwards)), tar(&dotted), members] {
        assert_eq!(digests(run(&lab, with.clone(), &bytes).unwrap()), wanted);
    }
    for (path, text) in files() {
        let path = lab.path("folder").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for folder in [lab.path("folder"), lab.path("folder/aclImdb")] {
        assert_eq!(digests(lab.run("reviews", with.clone(), &[("archive", &folder)]).unwrap()), wanted);
    }
    // Golden: raise `VERSION` of `reviews` when this changes.
    assert_eq!(wanted.0, "c7d26e67f90730702efd8e8f4879769e6dd7e665145848567248aa0eca04a5bc");
    assert_eq!(wanted.1, "511f2826b3e90160a3e7b7057ffde5ce37c4e65c74fa6b10e139d024b00f9f55");
}

#[test]
fn a_count_is_balanced_and_a_smaller_one_a_part_of_a_larger() {
    let lab = Lab::new();
    let bytes = gzip(&tar(&files()));
    let take = |count: u32, seed: u64| {
        let ran = run(&lab, json!({ "train": count, "test": 2, "seed": seed }), &bytes).unwrap();
        let counts = (ran.metric("train.positive").unwrap(), ran.metric("train.negative").unwrap());
        (ids(&ran, "train"), counts)
    };
    let (five, counts) = take(5, 1);
    assert_eq!(counts, (3.0, 2.0), "the odd one is positive");
    let (eight, counts) = take(8, 1);
    assert_eq!(counts, (4.0, 4.0));
    assert!(five.iter().all(|id| eight.contains(id)));
    assert_eq!(take(8, 1).0, eight);
    assert!((2..20).any(|seed| take(8, seed).0 != eight), "another seed draws others");
    let natural =
        |id: &String| (id.contains("pos"), id.split(['/', '_']).nth(2).unwrap().parse::<u32>().unwrap());
    assert!(eight.is_sorted_by_key(natural));
}

#[test]
fn a_count_beyond_what_there_is_is_an_error_with_numbers() {
    let err = run(&Lab::new(), json!({ "test": 14 }), &tar(&files())).err().unwrap();
    assert_eq!(err, "`test: 14` needs 7 negative reviews, the archive has 6");
    let train_only: Vec<_> = files().into_iter().filter(|(path, _)| path.contains("train")).collect();
    let err = run(&Lab::new(), json!({}), &tar(&train_only)).err().unwrap();
    assert_eq!(err, "`test: all` finds nothing: the archive has no reviews in `test/`");
}

#[test]
fn a_truncated_archive_is_an_error_wherever_it_ends() {
    let plain = tar(&files());
    let packed = gzip(&plain);
    for end in [3, 20, packed.len() / 2, packed.len() - 8, packed.len() - 1] {
        let message = error(&packed[..end]);
        assert!(message.starts_with("the archive `FILE` is truncated: it ends early"), "{end}: {message}");
    }
    // In a header, in a text, in padding, between two entries, before the closing blocks.
    for end in [1024 + 700, 1024 + 512 + 3, 1024 * 3 + 600, 1024 * 5, files().len() * 1024] {
        let message = error(&plain[..end]);
        assert!(
            message.starts_with("the archive `FILE` is truncated: it ends early after `"),
            "{end}: {message}"
        );
    }
}

#[test]
fn a_damaged_archive_is_an_error() {
    let mut packed = gzip(&tar(&files()));
    let at = packed.len() - 6;
    packed[at] ^= 1;
    assert!(error(&packed).starts_with("the archive `FILE` is damaged after `aclImdb/test/pos/33_10.txt`"));
    let mut plain = tar(&files());
    plain[1024 * 3 + 5] ^= 1;
    assert!(error(&plain).starts_with("the archive `FILE` is damaged after `aclImdb/train/pos/notes.txt`"));
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    for bytes in [b"<html>not found</html>".repeat(100), b"PK\x03\x04".to_vec(), gzip(&[b'x'; 2000])] {
        assert_eq!(error(&bytes), "`FILE` is no tar archive, packed with gzip or plain");
    }
    assert_eq!(error(b""), "`FILE` is empty");
    assert_eq!(error(&tar(&files()[..4])), "`FILE` has no reviews inside");
}

#[test]
fn an_entry_outside_the_archive_is_refused() {
    for path in ["aclImdb/../../x", "/etc/passwd", "../train/pos/1_9.txt"] {
        let mut files = files();
        files.insert(5, (path.into(), b"x".to_vec()));
        assert_eq!(error(&tar(&files)), format!("the archive has an entry outside its folder: `{path}`"));
    }
}

#[test]
fn unreadable_or_doubled_reviews_are_named() {
    let mut files = files();
    files[8].1 = vec![b'a', 0xff];
    let id = files[8].0.trim_start_matches("aclImdb/").to_owned();
    assert_eq!(error(&tar(&files)), format!("review `{id}` is not UTF-8 text"));
    files[8] = files[7].clone();
    let id = files[7].0.trim_start_matches("aclImdb/").to_owned();
    assert_eq!(error(&tar(&files)), format!("review `{id}` is in `FILE` twice"));
}

#[test]
fn counts_are_checked_as_they_are_written() {
    let wanted = "expected `all` or a count of at least 1";
    assert_eq!(
        problems("reviews", json!({ "train": "some", "test": 0, "seed": 7 })),
        [
            format!("test: invalid value: integer `0`, {wanted}"),
            format!("train: invalid value: string \"some\", {wanted}"),
        ]
    );
    assert_eq!(problems("reviews", json!({ "test": -3 })).len(), 1);
    assert_eq!(
        problems("reviews", json!({ "test": 1.5 })),
        [format!("test: invalid type: floating point `1.5`, {wanted}")]
    );
    assert!(problems("reviews", json!({ "train": "all", "test": 300 })).is_empty());
}

#[test]
fn the_published_archive_gives_all_reviews() {
    let Some(archive) = imdb_archive() else { return };
    let ran = Lab::new().run("reviews", json!({ "train": 1001 }), &[("archive", &archive)]).unwrap();
    let test = read_reviews(ran.output("test")).unwrap();
    assert_eq!((test.len(), ran.metric("test.positive")), (25_000, Some(12_500.0)));
    assert_eq!((ran.metric("train.positive"), ran.metric("train.negative")), (Some(501.0), Some(500.0)));
    assert_eq!(test[0].id, "test/neg/0_2.txt");
    assert!(test.iter().all(|review| (review.rating > Some(5)) == (review.label == 1)));
}
