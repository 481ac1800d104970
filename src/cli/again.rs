//! The command that tries a stage again after it has failed.

use super::targets::quoted;
use crate::record::Reason;

/// What was asked of `pipe run`, as far as it is to be asked again, in words for a shell.
#[derive(Debug, Clone, Default)]
pub struct Again {
    /// The command up to what chooses stages; all of it where it takes no such options.
    pub base: Vec<String>,
    /// `--only`, `--from` and `--until`.
    pub selection: Vec<String>,
    /// `--force`, if a stage was made to run although it has a result.
    pub force: Vec<String>,
    /// `pipe logs`, with the root where it would not be found.
    pub logs: Vec<String>,
}

impl Again {
    /// The words of the command that tries `stage` again, which ran for these `reasons`.
    ///
    /// Mostly that is the same command: what is done is cached, what failed is not. With `--force` it
    /// would do again what is done, and without it a stage that has an older result would be cached;
    /// so a forced stage is forced again, and nothing before it.
    pub fn words(&self, stage: &str, reasons: &[Reason]) -> Vec<String> {
        let choice = if reasons.contains(&Reason::Forced) && !self.force.is_empty() {
            [vec![format!("--from {}", quoted(stage))], self.force.clone()].concat()
        } else {
            self.selection.clone()
        };
        [self.base.clone(), choice].concat()
    }

    /// The command that [`Self::words`] are.
    pub fn command(&self, stage: &str, reasons: &[Reason]) -> String {
        self.words(stage, reasons).join(" ")
    }
}

/// The words of a command in lines of at most `width` columns, where a word is not longer than that;
/// a shell reads them as one.
pub fn folded(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            // Room is left for the backslash.
            Some(line) if line.chars().count() + 1 + word.chars().count() + 2 <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) => {
                line.push_str(" \\");
                lines.push(format!("  {word}"));
            }
            None => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_forced_stage_is_forced_again_and_nothing_before_it() {
        let again = Again {
            base: words("pipe run p.yaml"),
            selection: words("--until eval"),
            force: words("--force"),
            logs: words("pipe logs"),
        };
        assert_eq!(again.command("lora", &[Reason::NeverRun]), "pipe run p.yaml --until eval");
        assert_eq!(again.command("lora", &[Reason::Forced]), "pipe run p.yaml --from lora --force");
        let again = Again { base: words("pipe reproduce run_2 --force"), ..Again::default() };
        assert_eq!(again.command("lora", &[Reason::Forced]), "pipe reproduce run_2 --force");
    }

    #[test]
    fn a_long_command_is_folded_so_that_a_shell_reads_one() {
        let options = ["-p demo", "-s lora.rank=16"].map(str::to_owned).to_vec();
        let command = [words("pipe run pipelines/all_three.yaml"), options].concat();
        assert_eq!(
            folded(&command, 40),
            ["pipe run pipelines/all_three.yaml \\", "  -p demo -s lora.rank=16"]
        );
        assert_eq!(folded(&command, 80), [command.join(" ")]);
    }
}
