//! Damage to what `pipe` keeps, done to files that nobody has open.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::lab::Lab;

/// Three stages of a few milliseconds, the last of which changes its mind about nothing.
pub const CHAIN: &str = "stages:
  a: { kind: shell, with: { command: 'seq 2000 > {out.x}', outputs: [x] } }
  b: { kind: shell, in: { x: a }, with: { command: 'tac {in.x} > {out.x}', outputs: [x] } }
  c: { kind: shell, in: { x: b }, with: { command: 'cat {in.x} {in.x} > {out.x}', outputs: [x] } }
";

/// Damages a file, or its bytes.
type DamageOf = fn(&Path);
type DamageTo = fn(&mut Vec<u8>);

/// Replaces the bytes of a file, be it read-only or not.
pub fn overwrite(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Stages, ports and digests of the latest run.
pub fn digests(lab: &Lab) -> String {
    lab.ask(
        "SELECT group_concat(stage || '.' || port || '=' || digest, ' ') FROM
           (SELECT * FROM artifact WHERE run = (SELECT max(id) FROM run) ORDER BY stage, port)",
    )
}

/// The object that `stage` wrote.
fn object(lab: &Lab, stage: &str) -> PathBuf {
    let digest: String = lab.ask(&format!("SELECT digest FROM artifact WHERE stage = '{stage}' LIMIT 1"));
    lab.path("cache/v1/objects").join(&digest[..2]).join(&digest[2..])
}

#[test]
fn a_damaged_object_is_computed_again_and_the_reason_is_told() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    let right = digests(&lab);
    let file = object(&lab, "b");
    let damages: [(&str, DamageOf); 3] = [
        ("is damaged", |file| overwrite(file, |bytes| bytes.truncate(5))),
        ("is damaged", |file| overwrite(file, |bytes| bytes[7] ^= 1)),
        ("is missing", |file| fs::remove_file(file).unwrap()),
    ];
    for (word, damage) in damages {
        damage(&file);
        let said = lab.run(&[]).success();
        assert_eq!(said.stages("done"), ["b"], "{}", said.stderr);
        assert!(said.stderr.contains("its result was lost") && said.stderr.contains(word), "{}", said.stderr);
        assert_eq!(digests(&lab), right);
        lab.pipe(&["verify", "--cache"]).success();
    }
}

#[test]
fn an_index_that_is_gone_or_damaged_anywhere_is_made_anew_and_nothing_runs() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    let index = lab.path("cache/v1/index.db");
    let pages = fs::metadata(&index).unwrap().len() as usize / 4096;
    let mut damages: Vec<Box<dyn Fn()>> = vec![
        Box::new(|| fs::remove_file(&index).unwrap()),
        Box::new(|| overwrite(&index, |bytes| bytes.truncate(5000))),
        Box::new(|| overwrite(&index, |bytes| *bytes = b"not a database".to_vec())),
    ];
    for page in 0..pages {
        let index = &index;
        damages.push(Box::new(move || overwrite(index, |bytes| bytes[page * 4096..][..4096].fill(0xaa))));
    }
    for (number, damage) in damages.iter().enumerate() {
        fs::remove_file(&index).unwrap();
        lab.run(&[]).success();
        damage();
        // What only repeats the run before does not need every page; what is asked as JSON does.
        for more in [&[][..], &["--json"]] {
            let said = lab.run(more).success();
            assert!(said.stderr.contains("nothing to do, 3 cached"), "damage {number}: {}", said.stderr);
        }
        let database = rusqlite::Connection::open(&index).unwrap();
        // A page that nobody needed may still be damaged.
        let known: i64 = database.query_row("SELECT count(*) FROM result", [], |row| row.get(0)).unwrap();
        assert_eq!(known, 3, "damage {number}");
    }
}

#[test]
fn a_damaged_result_is_a_miss() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    let right = digests(&lab);
    for file in lab.files("cache/v1/results") {
        overwrite(&file, |bytes| bytes.truncate(bytes.len() / 2));
        fs::remove_file(lab.path("cache/v1/index.db")).unwrap();
        assert_eq!(lab.run(&[]).success().stages("done").len(), 1);
        assert_eq!(digests(&lab), right);
    }
}

/// A history of eight runs with a tag and a note.
fn history() -> Lab {
    let lab = Lab::new(CHAIN);
    for number in 1..=8 {
        lab.write("pipelines/p.yaml", CHAIN.replace("seq 2000", &format!("seq {}", 2000 + number)));
        lab.run(&[]).success();
        lab.pipe(&["note", &format!("run_{number}"), "worth keeping"]).success();
    }
    lab.pipe(&["tag", "run_3", "best"]).success();
    let database = rusqlite::Connection::open(lab.path("runs.db")).unwrap();
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    lab
}

/// How many of the runs of [`history`] are still known.
fn known(lab: &Lab) -> usize {
    let runs: serde_json::Value =
        serde_json::from_str(&lab.pipe(&["runs", "--json", "--limit", "100"]).success().stdout).unwrap();
    let early = |run: &&serde_json::Value| (1..=8).any(|number| run["run"] == format!("run_{number}"));
    runs.as_array().unwrap().iter().filter(early).count()
}

#[test]
fn whatever_page_of_the_history_is_damaged_the_rest_is_saved_and_no_number_is_given_twice() {
    let lab = history();
    let path = lab.path("runs.db");
    let whole = fs::read(&path).unwrap();
    let (mut salvaged, mut least) = (0, 8);
    for page in 0..whole.len() / 4096 {
        for ending in ["-wal", "-shm"] {
            let _ = fs::remove_file(lab.path(&format!("runs.db{ending}")));
        }
        fs::write(&path, &whole).unwrap();
        overwrite(&path, |bytes| bytes[page * 4096..][..4096].fill(0x55));
        let shown = lab.pipe(&["compare", "run_7", "run_8"]);
        let said = lab.run(&[]).success();
        assert!(said.stderr.contains("done run_9"), "page {page}: {}", said.stderr);
        assert!(said.stderr.contains("nothing to do, 3 cached"), "page {page}: {}", said.stderr);
        let words = format!("{}{}", shown.stderr, said.stderr);
        if words.contains("was damaged") {
            salvaged += 1;
            assert!(words.contains("runs.db.damaged-1") && words.contains("runs could be saved"), "{words}");
            fs::remove_file(lab.path("runs.db.damaged-1")).unwrap();
            let _ = fs::remove_file(lab.path("runs.db.damaged-1-wal"));
            let is_whole: String = lab.ask("PRAGMA integrity_check");
            assert_eq!(is_whole, "ok", "page {page}");
        }
        least = least.min(known(&lab));
    }
    eprintln!(
        "{salvaged} of {} damaged pages were found in use; at least {least} of 8 runs were saved",
        whole.len() / 4096
    );
    assert!(salvaged >= 2, "the first pages are always read");
}

#[test]
fn a_history_cut_short_or_of_garbage_or_with_impossible_values_is_set_aside() {
    let lab = history();
    let path = lab.path("runs.db");
    let whole = fs::read(&path).unwrap();
    let damages: [(&str, DamageTo); 3] = [
        ("8 of 8 runs", |bytes| bytes.truncate(bytes.len() - 4096 * 2)),
        ("0 of 8 runs", |bytes| bytes.fill(0x5a)),
        ("8 of 8 runs", |bytes| bytes[..100].fill(0)),
    ];
    for (number, (words, damage)) in damages.into_iter().enumerate() {
        fs::write(&path, &whole).unwrap();
        overwrite(&path, damage);
        let said = lab.pipe(&["runs"]).success();
        assert!(said.stderr.contains(words), "{}", said.stderr);
        assert!(said.stderr.contains(&format!("runs.db.damaged-{}`", number + 1)), "{}", said.stderr);
        assert!(lab.run(&[]).success().stderr.contains("done run_9"));
        for ending in ["-wal", "-shm"] {
            let _ = fs::remove_file(lab.path(&format!("runs.db{ending}")));
        }
    }
    fs::write(&path, &whole).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("UPDATE run SET profiles = 'x' WHERE id = 4", []).unwrap();
    drop(database);
    let said = lab.pipe(&["runs"]).success();
    assert!(said.stderr.contains("7 of 8 runs could be saved"), "{}", said.stderr);
    assert!(said.stdout.contains("best"), "tags are saved: {}", said.stdout);
    let shown = lab.pipe(&["show", "run_3"]).success().stdout;
    assert!(shown.contains("worth keeping"), "{shown}");
}
