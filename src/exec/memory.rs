//! How much memory the processes of stages have at the moment.

use std::{collections::HashMap, fs};

use rustix::process::Pid;

/// Resident memory of each of these process groups, bytes; none where the system does not tell.
///
/// Pages that processes of a group share count once for each. Every process of the machine is
/// asked for its group, so this is for once a second, not for more.
pub fn memory_of(groups: &[Pid]) -> HashMap<Pid, u64> {
    let mut memory = HashMap::new();
    if groups.is_empty() {
        return memory;
    }
    let page = rustix::param::page_size() as u64;
    for entry in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((group, pages)) = group_and_pages(&stat)
            && let Some(group) = Pid::from_raw(group).filter(|group| groups.contains(group))
        {
            *memory.entry(group).or_default() += pages * page;
        }
    }
    memory
}

/// The process group and the resident pages of a line of `/proc/PID/stat`, see `proc_pid_stat(5)`.
fn group_and_pages(stat: &str) -> Option<(i32, u64)> {
    // The name of the program, in brackets, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let group = fields.nth(2)?.parse().ok()?;
    let pages = fields.nth(18)?.parse().ok()?;
    Some((group, pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_any_name_is_read() {
        let stat = "71 (a) b (c) S 1 70 70 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 5 9998336 1234 18446744";
        assert_eq!(group_and_pages(stat), Some((70, 1234)));
        assert_eq!(group_and_pages("71 (cut short) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_some() {
        let group = rustix::process::getpgrp();
        assert!(memory_of(&[group])[&group] > 100_000);
    }
}
