//! What the script of a wrapped job, and the `sbatch` that submitted it, ask of Slurm. Pure.

/// The signals that the harness takes for a request to save, by name and by number.
const HEARD: [&str; 6] = ["USR1", "10", "USR2", "12", "HUP", "1"];

/// The options that matter here; none where nobody gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ScriptOptions {
    pub(super) signal: Option<String>,
    pub(super) open_mode: Option<String>,
}

impl ScriptOptions {
    /// Reads a script, the options that were inherited, and the command line, which newer versions of Slurm show of a job.
    /// What comes later counts more.
    pub(super) fn read(script: &str, inherited: &str, shown: &str) -> Self {
        let head =
            script.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#'));
        let lines = head.filter_map(|line| line.strip_prefix("#SBATCH"));
        let typed = shown.split_once(" SubmitLine=").map_or("", |(_, rest)| rest);
        let typed = typed.split(" WorkDir=").next().unwrap_or_default();
        let words: Vec<&str> =
            lines.chain([inherited, typed]).flat_map(str::split_whitespace).map(unquoted).collect();
        Self { signal: last(&words, "--signal"), open_mode: last(&words, "--open-mode") }
    }

    /// Whether the job's own signal comes to the script, which is the harness by then, and not to job steps.
    pub(super) fn signals_harness(&self) -> bool {
        let Some((flags, rest)) = self.signal.as_deref().and_then(|own| own.split_once(':')) else {
            return false;
        };
        let name = rest.split('@').next().unwrap_or_default().to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        flags.contains('B') && HEARD.contains(&name)
    }

    pub(super) fn is_appending(&self) -> bool {
        self.open_mode.as_deref().is_some_and(|mode| mode.starts_with('a'))
    }
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

/// The value of an option that counts: the last one.
fn last(words: &[&str], name: &str) -> Option<String> {
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        match word.strip_prefix(name) {
            Some("") => found = words.get(at + 1).copied(),
            Some(rest) => found = rest.strip_prefix('=').or(found),
            None => {}
        }
    }
    found.map(|value| unquoted(value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, shown: &str, signals_harness: bool, is_appending: bool) {
        let own = ScriptOptions::read(script, "", shown);
        let found = (own.signals_harness(), own.is_appending());
        assert_eq!(found, (signals_harness, is_appending), "{own:?}");
    }

    #[test]
    fn the_options_of_a_script_are_those_that_sbatch_reads() {
        check("#!/bin/sh\n#SBATCH --open-mode=append --signal=B:USR1@120\nx\n", "", true, true);
        check("#!/bin/sh\n\n#SBATCH --signal \"RB:sigusr2@60\"\n", "", true, false);
        check("#!/bin/sh\n#SBATCH --signal=B:12\n", "", true, false);
        check("#!/bin/sh\n#SBATCH --signal=USR1@120\n", "", false, false); // to steps only
        check("#!/bin/sh\n#SBATCH --signal=B:TERM@120\n", "", false, false);
        check("#!/bin/sh\ncd x\n#SBATCH --signal=B:USR1@120\n", "", false, false);
        check("#!/bin/sh\n##SBATCH --signal=B:USR1@120\n", "", false, false);
        check("", "", false, false);
    }

    #[test]
    fn what_was_typed_counts_more() {
        let shown = "JobId=7 NumNodes=1 SubmitLine=sbatch --signal=B:USR2@60 old.sbatch --open-mode=append \
                     WorkDir=/p Comment=--signal=TERM";
        check("#!/bin/sh\n#SBATCH --signal=USR1 --open-mode=truncate\n", shown, true, true);
        let inherited = ScriptOptions::read("#SBATCH --signal=USR2\n", "--signal=B:USR1@9", "");
        assert!(inherited.signals_harness());
    }
}
