//! What the end of a process means to the person who sees it.

/// Says whether the kernel has killed a process since to have its memory back.
#[derive(Debug)]
pub struct OutOfMemory {
    kills_before: Option<u64>,
}

impl OutOfMemory {
    /// Begins to watch.
    pub fn watch() -> Self {
        Self { kills_before: kills() }
    }

    /// Whether it has happened, some process or other; `None` where the system does not tell.
    pub fn has_happened(&self) -> Option<bool> {
        Some(kills()? > self.kills_before?)
    }
}

/// How many processes the kernel has killed for their memory, in containers and outside.
fn kills() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// What a signal usually means: nothing, or words in brackets with a space before them.
pub fn of_signal(signal: i32, out_of_memory: Option<bool>) -> &'static str {
    match signal {
        4 => " (illegal instruction: built for another processor?)",
        6 => " (it gave up, see its log)",
        8 => " (division by zero or the like)",
        9 if out_of_memory == Some(true) => " (killed: the system was out of memory)",
        9 if out_of_memory == Some(false) => {
            " (killed by hand or by a program: the system was not out of memory)"
        }
        9 => " (killed: out of memory, or by hand)",
        7 | 11 => " (invalid memory access: a bug)",
        15 => " (asked to end)",
        _ => "",
    }
}

/// What an exit code means that shells give: nothing, or words in brackets with a space before them.
pub fn of_code(code: i32, out_of_memory: Option<bool>) -> String {
    match code {
        126 => " (what it calls cannot be executed)".into(),
        127 => " (what it calls is not there)".into(),
        // 128 and the number of the signal that ended what the shell ran.
        129..=159 => {
            let signal = code - 128;
            let meaning = of_signal(signal, out_of_memory);
            let meaning = meaning.trim_start_matches(" (").trim_end_matches(')');
            let colon = if meaning.is_empty() { "" } else { ": " };
            format!(" (signal {signal}{colon}{meaning})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_shells_are_read_as_what_they_stand_for() {
        assert_eq!(of_code(1, None), "");
        assert_eq!(of_code(127, None), " (what it calls is not there)");
        assert_eq!(of_code(137, Some(true)), " (signal 9: killed: the system was out of memory)");
        assert_eq!(of_code(137, None), " (signal 9: killed: out of memory, or by hand)");
        assert_eq!(of_code(130, None), " (signal 2)");
        assert_eq!(of_code(255, None), "");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_kernel_that_counts_has_killed_nothing_meanwhile() {
        assert_ne!(OutOfMemory::watch().has_happened(), Some(true));
    }
}
