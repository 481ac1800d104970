//! Random faults, one after the other, from a seed that is printed.
//!
//! `PIPE_FAULTS` is how many (default 10), `PIPE_FAULTS_SEED` repeats the choices of an earlier
//! campaign; the moments are fractions of a run's time, so where exactly they hit differs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    damage::{digests, overwrite},
    lab::{EXPERIMENT, Lab},
};

/// The model stages of the experiment, and commands around them.
fn pipeline() -> String {
    let shell = "  listed:
    kind: shell
    in: { reviews: reviews.train }
    with: { command: 'cut -c 1-40 {in.reviews} | sort > {out.text}; sleep 0.05', outputs: [text] }
  counted:
    kind: shell
    in: { text: listed, predictions: lora_tuned }
    with:
      command: 'cat {in.text} {in.predictions} | wc -l > {out.lines}; echo \"{\\\"lines\\\": 1}\" > {metrics}'
      outputs: [lines]
      metrics: m.json
";
    format!("{EXPERIMENT}{shell}")
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())].clone()) }
    }
}

/// The stages that have a result in the cache.
fn finished(lab: &Lab) -> BTreeSet<String> {
    let results = lab.files("cache/v1/results").into_iter();
    let read = |file| serde_json::from_slice::<serde_json::Value>(&fs::read(file).unwrap()).ok();
    results.filter_map(read).map(|result| result["stage"].as_str().unwrap().to_owned()).collect()
}

/// Processes that work in the project, but for `pipe` itself.
fn others(lab: &Lab, pipe: u32) -> Vec<i32> {
    let here = lab.path(".").canonicalize().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_here = |number: &i32| {
        fs::read_link(format!("/proc/{number}/cwd")).is_ok_and(|folder| folder == here)
            && *number != pipe as i32
    };
    numbers.filter(is_here).collect()
}

fn start(lab: &Lab) -> Child {
    let mut command = lab.command(&["run", "pipelines/p.yaml"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills `pipe` or one of its processes at a moment of the `whole` time; says which, if it was still there.
fn kill(lab: &Lab, random: &mut Random, whole: Duration) -> &'static str {
    let mut pipe = start(lab);
    // The fault comes at a random moment; nothing is waited for.
    std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
    let worker = if random.below(2) == 0 { random.pick(&others(lab, pipe.id())) } else { None };
    let (who, victim) = match worker {
        Some(worker) => ("kills of a worker or command", worker),
        None => ("kills of pipe", pipe.id() as i32),
    };
    let hit = pipe.try_wait().unwrap().is_none()
        && kill_process(Pid::from_raw(victim).unwrap(), Signal::KILL).is_ok();
    let code = pipe.wait().unwrap().code();
    let is_pipe = victim == pipe.id() as i32;
    // One that had ended a moment before takes signals until it is waited for.
    if !hit || is_pipe && code == Some(0) {
        return "kills that came too late";
    }
    if is_pipe {
        assert_eq!(code, None, "it was killed");
    } else {
        assert!(matches!(code, Some(0 | 1)), "a killed worker fails its stage: {code:?}");
    }
    who
}

/// Two runs at once; both end well, and where nothing was damaged no key is computed twice.
fn two_at_once(lab: &Lab, is_intact: bool) -> &'static str {
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| lab.run(&[])), scope.spawn(|| lab.run(&[]))];
        let ended = both.map(|run| run.join().unwrap());
        for said in &ended {
            let refused = said.stderr.contains("is damaged, and another `pipe` uses it");
            let is_right = said.code == Some(0) || (!is_intact && refused);
            assert!(is_right, "{}\n---\n{}", ended[0].stderr, ended[1].stderr);
        }
    });
    let most: i64 = lab.ask(
        "SELECT max(times) FROM (SELECT count(*) AS times FROM execution WHERE duration IS NOT NULL GROUP BY key)",
    );
    assert!(most == 1 || !is_intact, "a key was computed {most} times");
    "pairs of runs at once"
}

/// Damages something that lies in the project.
fn damage(lab: &Lab, random: &mut Random) -> &'static str {
    let garbage = |file: &Path, random: &mut Random| {
        overwrite(file, |bytes| {
            let from = random.below(bytes.len().max(1));
            let to = bytes.len().min(from + 1 + random.below(5000));
            bytes[from..to].iter_mut().for_each(|byte| *byte = random.next() as u8);
        });
    };
    let object = random.pick(&lab.files("cache/v1/objects"));
    let result = random.pick(&lab.files("cache/v1/results"));
    let (index, history) = (lab.path("cache/v1/index.db"), lab.path("runs.db"));
    match (random.below(9), object, result) {
        (0, Some(object), _) => {
            overwrite(&object, |bytes| bytes.truncate(bytes.len() / 2));
            "objects cut short"
        }
        (1, Some(object), _) => {
            let bit = random.next();
            overwrite(&object, |bytes| {
                let at = bit as usize % bytes.len();
                bytes[at] ^= 1 << (bit >> 61);
            });
            "objects with a flipped bit"
        }
        (2, Some(object), _) => {
            fs::remove_file(object).unwrap();
            "objects deleted"
        }
        (3, _, Some(result)) => {
            overwrite(&result, |bytes| bytes.truncate(bytes.len() / 2));
            "results cut short"
        }
        (4, _, Some(result)) => {
            garbage(&result, random);
            let _ = fs::remove_file(index);
            "results with garbage"
        }
        (5, ..) if index.exists() => {
            fs::remove_file(index).unwrap();
            "indexes deleted"
        }
        (6, ..) if index.exists() => {
            garbage(&index, random);
            "indexes with garbage"
        }
        (7, ..) if history.exists() => {
            garbage(&history, random);
            "histories with garbage"
        }
        (8, ..) if history.exists() => {
            overwrite(&history, |bytes| bytes.truncate(bytes.len() - bytes.len() / 8));
            "histories cut short"
        }
        _ => "damages of nothing yet",
    }
}

/// Puts the project through a fault, and perhaps another, and looks at what the plain command makes of it.
fn survive(random: &mut Random, right: &str, whole: Duration, counts: &mut BTreeMap<&'static str, usize>) {
    let lab = Lab::new(&pipeline());
    let mut faults = vec![kill(&lab, random, whole)];
    let mut is_intact = true;
    while random.below(2) == 0 && faults.len() < 4 {
        faults.push(match random.below(4) {
            0 => two_at_once(&lab, is_intact),
            1 => kill(&lab, random, whole),
            _ => {
                is_intact = false;
                damage(&lab, random)
            }
        });
    }
    let had = finished(&lab);
    let said = lab.run(&[]).success();
    let told = format!("after {faults:?}:\n{}", said.stderr);
    let found = digests(&lab);
    assert!(found == right, "{told}\n{found}\n{right}");
    if is_intact {
        let again: Vec<&str> = said.stages("done").into_iter().filter(|stage| had.contains(*stage)).collect();
        assert!(again.is_empty(), "{again:?} were finished before, {told}");
    }
    let said = lab.run(&[]).success();
    assert!(said.stderr.contains("nothing to do"), "{told}\n{}", said.stderr);
    lab.pipe(&["runs"]).success();
    let numbers: i64 = lab.ask("SELECT count(*) - count(DISTINCT id) FROM run");
    assert_eq!(numbers, 0);
    faults.into_iter().for_each(|fault| *counts.entry(fault).or_default() += 1);
}

#[test]
fn after_random_faults_the_plain_command_ends_with_the_right_bytes() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("PIPE_FAULTS_SEED").unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_nanos() as u64
    });
    let projects = number("PIPE_FAULTS").unwrap_or(10);
    println!("fault campaign: {projects} projects, seed {seed}");
    let undisturbed = Lab::new(&pipeline());
    let started = Instant::now();
    undisturbed.run(&[]).success();
    let (whole, right) = (started.elapsed(), digests(&undisturbed));
    let mut counts = BTreeMap::new();
    let mut random = Random(seed);
    for project in 0..projects {
        let from = random.next();
        println!("project {project}, choices from {from}");
        survive(&mut Random(from), &right, whole, &mut counts);
    }
    println!("all {projects} ended right, after");
    counts.iter().for_each(|(fault, count)| println!("{count:5} {fault}"));
}
