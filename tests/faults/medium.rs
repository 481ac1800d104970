//! Disks that cannot be written, or are full. They are mounted in a name space of the test's own,
//! which needs no privileges where the system allows it; elsewhere these tests say that they are skipped.

use std::process::Command;

use crate::{damage::CHAIN, lab::Lab};

/// What a shell script said in which `$PIPE` is the binary and mounting is allowed, or `None`.
fn script(lab: &Lab, text: &str) -> Option<String> {
    let may_mount = Command::new("unshare").args(["-rm", "true"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `unshare -rm` is not allowed here");
        return None;
    }
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", text])
        .current_dir(lab.path("."))
        .env("PIPE", env!("CARGO_BIN_EXE_pipe"))
        .env_remove("PIPE_ROOT")
        .output()
        .unwrap();
    Some(String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

/// What was said between `== part` and the next such line.
#[track_caller]
fn part<'a>(said: &'a str, name: &str) -> &'a str {
    let found = said.split("== ").find_map(|part| part.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no part `{name}` in\n{said}"))
}

#[test]
fn on_a_read_only_disk_everything_that_only_reads_works_and_the_rest_is_one_error() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    lab.run(&[]).success();
    let said = script(
        &lab,
        "exec 2>&1; here=$PWD; mount --bind $here $here && mount -o remount,bind,ro $here && cd $here
        for verb in runs 'show @last' 'compare run_1 run_2' 'logs run_1 a' 'gc -n' 'run -n pipelines/p.yaml' \
            'why pipelines/p.yaml c' 'verify --cache' 'run pipelines/p.yaml' 'tag @last x' 'gc --keep 0' 'verify @last'
        do echo \"== $verb:\"; $PIPE $verb; echo \"code $?\"; done",
    );
    let Some(said) = said else { return };
    for verb in [
        "runs",
        "show @last",
        "compare run_1 run_2",
        "logs run_1 a",
        "gc -n",
        "run -n",
        "why",
        "verify --cache",
    ] {
        assert!(part(&said, verb).contains("code 0"), "{verb}:\n{said}");
    }
    assert!(part(&said, "run -n").contains("cached"), "{said}");
    for (verb, code) in [("run pipelines", 1), ("tag @last", 1), ("gc --keep", 1), ("verify @last", 1)] {
        let said = part(&said, verb);
        assert!(said.contains(&format!("code {code}")), "{verb}: {said}");
        assert!(said.to_lowercase().contains("read-only") || said.contains("readonly"), "{verb}: {said}");
        assert_eq!(said.matches("cannot").count(), 1, "one error of {verb}: {said}");
    }
}

#[test]
fn a_cache_that_is_read_only_serves_hits_and_refuses_the_rest_in_one_error() {
    let lab = Lab::new(CHAIN);
    lab.run(&[]).success();
    for folder in ["cache", "cache/v1/objects"] {
        let said = script(
            &lab,
            &format!(
                "exec 2>&1; mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}
                echo '== hits'; $PIPE run pipelines/p.yaml; echo \"code $?\"
                echo '== change'; sed -i 's/seq 2/seq 3/' pipelines/p.yaml
                $PIPE run pipelines/p.yaml; echo \"code $?\"; sed -i 's/seq 3/seq 2/' pipelines/p.yaml"
            ),
        );
        let Some(said) = said else { return };
        let hits = part(&said, "hits");
        assert!(hits.contains("nothing to do, 3 cached") && hits.contains("code 0"), "{folder}: {said}");
        let change = part(&said, "change");
        assert!(
            change.contains("the cache cannot be written") && change.contains("code 1"),
            "{folder}: {said}"
        );
        assert!(change.contains("Read-only file system"), "{folder}: {said}");
    }
}

#[test]
fn on_a_full_disk_no_stage_is_given_half_a_folder() {
    let lab = Lab::new(
        "stages:
  make: { kind: shell, with: { command: 'mkdir {out.m}; for x in a b c; do head -c 500000 /dev/zero > {out.m}/$x; done', outputs: [m/] } }
  take: { kind: shell, in: { m: make }, with: { command: 'cat {in.m}/* | wc -c' } }
",
    );
    let said = script(
        &lab,
        "exec 2>&1; mkdir disk; mount -t tmpfs -o size=4m tmpfs disk && cp -r pipelines disk && cd disk
        $PIPE run pipelines/p.yaml --only make
        head -c 1500000 /dev/zero > filler
        echo '== full'; $PIPE run pipelines/p.yaml; echo \"code $?\"; find cache -name m
        rm filler; echo '== freed'; $PIPE run pipelines/p.yaml; echo \"code $?\"; $PIPE logs @last take",
    );
    let Some(said) = said else { return };
    let full = part(&said, "full");
    assert!(
        full.contains("cannot unpack") && full.contains("because `b`: No space left on device"),
        "{said}"
    );
    assert!(full.contains("code 1") && !full.contains("\ncache"), "{said}");
    let freed = part(&said, "freed");
    assert!(
        freed.contains("1 ran, 1 cached") && freed.contains("code 0") && freed.contains("1500000"),
        "{said}"
    );
}

#[test]
fn on_a_full_disk_what_is_finished_stays_and_once_there_is_room_the_same_command_goes_on() {
    let big = "stages:
  small: { kind: shell, with: { command: 'seq 2000 > {out.x}', outputs: [x] } }
  big: { kind: shell, in: { x: small }, with: { command: 'head -c 3000000 /dev/zero > {out.x}', outputs: [x] } }
";
    let lab = Lab::new(big);
    let said = script(
        &lab,
        "exec 2>&1; mkdir disk; mount -t tmpfs -o size=4m tmpfs disk && cp -r pipelines disk && cd disk
        head -c 2000000 /dev/zero > filler
        echo '== full'; $PIPE run pipelines/p.yaml; echo \"code $?\"
        rm filler; echo '== freed'; $PIPE run pipelines/p.yaml; echo \"code $?\"
        $PIPE verify --cache
        dd if=/dev/zero of=filler bs=4k 2> /dev/null
        echo '== no room for the record'; $PIPE run pipelines/p.yaml; echo \"code $?\"
        echo '== room is made'; $PIPE gc --keep 0; echo \"code $?\"
        rm filler; echo '== and again'; $PIPE run pipelines/p.yaml; echo \"code $?\"",
    );
    let Some(said) = said else { return };
    let full = part(&said, "full");
    assert!(full.contains("code 1") && full.contains("No space left on device"), "{said}");
    assert!(full.contains("1 failed"), "{said}");
    let freed = part(&said, "freed");
    assert!(
        freed.contains("1 ran, 1 cached") && freed.contains("code 0") && freed.contains("all whole"),
        "{said}"
    );
    let record = part(&said, "no room");
    assert!(record.contains("runs.db`") && record.contains("No space left on device"), "{said}");
    assert!(record.contains("code 1"), "{said}");
    let room = part(&said, "room is made");
    assert!(room.contains("removed 2 results") && room.contains("code 0"), "{said}");
    assert!(part(&said, "and again").contains("2 ran, 0 cached"), "{said}");
}

#[test]
fn a_run_that_a_read_only_database_refuses_leaves_nothing_in_the_way_of_the_next() {
    let lab = Lab::new(CHAIN);
    let text = "exec 2>&1; here=$PWD
        if test $(id -u) = 0; then chown -R 65534:65534 $here; as='setpriv --reuid=65534 --regid=65534 --clear-groups'; fi
        $as true || exit; $as test -x $PIPE || exit
        $as $PIPE run pipelines/p.yaml; $as chmod a-w runs.db
        echo '== refused'; $as $PIPE run pipelines/p.yaml; echo \"code $?\"; ls runs.db*
        echo '== read'; $as $PIPE runs; echo \"code $?\"; ls runs.db*
        $as chmod u+w runs.db
        echo '== again'; $as $PIPE run pipelines/p.yaml; echo \"code $?\"
        $as touch runs.db-shm; $as chmod a-w runs.db-shm
        echo '== left by others'; $as $PIPE run pipelines/p.yaml; echo \"code $?\"
        echo '== tag'; $as $PIPE tag 1 x; echo \"code $?\"";
    let output = Command::new("sh")
        .args(["-c", text])
        .current_dir(lab.path("."))
        .env("PIPE", env!("CARGO_BIN_EXE_pipe"))
        .env_remove("PIPE_ROOT")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    if !said.contains("==") {
        eprintln!("skipped: nobody cannot run the binary here");
        return;
    }
    let refused = part(&said, "refused");
    assert!(refused.contains("Permission denied") && refused.contains("code 1"), "{said}");
    assert!(refused.ends_with("code 1\nruns.db\n"), "nothing lies beside it: {said}");
    let read = part(&said, "read");
    assert!(read.contains("run_1") && read.ends_with("code 0\nruns.db\n"), "{said}");
    assert!(part(&said, "again").contains("code 0"), "{said}");
    let left = part(&said, "left");
    assert!(left.contains("runs.db-shm`") && left.contains("code 1"), "the file is named: {said}");
    let tag = part(&said, "tag");
    assert!(tag.contains("runs.db-shm`") && tag.contains("code 1"), "the file is named: {said}");
}
