//! Whether a `pipe` that left its name somewhere still lives.
//!
//! A run notes the process that writes it, and so does the lock of a stage: process id, its start time in clock ticks, the
//! boot of the machine, the space of process ids, and the machine's name. A process id that is
//! used again has another start time; another boot or container makes another text. Nothing
//! is said of processes on other machines. Read from `/proc`; where there is none, no
//! process is known to have ended.

use std::{fs, path::Path};

/// The calling process as a text, or `None` where the system does not tell.
pub fn this_process() -> Option<String> {
    describe(std::process::id())
}

/// Whether `process`, as [`this_process`] gave it, is known to have ended.
pub fn has_ended(process: &str) -> bool {
    let words: Vec<&str> = process.splitn(5, ' ').collect();
    let [id, .., host] = words.as_slice() else { return false };
    let Ok(id) = id.parse() else { return false };
    host_name() == *host && this_process().is_some() && describe(id).as_deref() != Some(process)
}

fn describe(id: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The command may hold blanks and parentheses; what follows the last one does not.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link(Path::new("/proc/self/ns/pid")).ok()?;
    (!is_dead).then(|| format!("{id} {started} {} {} {}", boot.trim(), space.display(), host_name()))
}

fn host_name() -> String {
    hostname::get().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_to_have_ended_only_when_it_has() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = describe(child.id()).unwrap();
        assert!(!has_ended(&process));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_ended(&process));
        assert!(!has_ended(&format!("{process}2")), "nothing is known of another machine");
        assert!(!has_ended(&this_process().unwrap()));
    }

    #[test]
    fn a_process_id_used_again_is_another_process() {
        let process = this_process().unwrap();
        let mut words: Vec<&str> = process.split(' ').collect();
        words[1] = "1";
        assert!(has_ended(&words.join(" ")));
    }
}
