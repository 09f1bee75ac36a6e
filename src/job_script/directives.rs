//! The `#SBATCH` lines of a script, as `sbatch` reads them: up to the first line that is no comment. Pure.

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Counted from 1; 0 where it was typed.
    pub line: usize,
    /// Its long name, without dashes.
    pub name: String,
    /// What is given to it; empty for a flag.
    pub value: String,
}

/// Short options of `sbatch`, with their long names.
const SHORT: [(char, &str); 32] = [
    ('a', "array"),
    ('A', "account"),
    ('b', "begin"),
    ('B', "extra-node-info"),
    ('c', "cpus-per-task"),
    ('C', "constraint"),
    ('d', "dependency"),
    ('D', "chdir"),
    ('e', "error"),
    ('F', "nodefile"),
    ('G', "gpus"),
    ('H', "hold"),
    ('i', "input"),
    ('J', "job-name"),
    ('k', "no-kill"),
    ('L', "licenses"),
    ('m', "distribution"),
    ('M', "clusters"),
    ('n', "ntasks"),
    ('N', "nodes"),
    ('o', "output"),
    ('O', "overcommit"),
    ('p', "partition"),
    ('q', "qos"),
    ('Q', "quiet"),
    ('s', "oversubscribe"),
    ('S', "core-spec"),
    ('t', "time"),
    ('v', "verbose"),
    ('w', "nodelist"),
    ('W', "wait"),
    ('x', "exclude"),
];

/// Options that never take a value as the next word.
const FLAGS: [&str; 19] = [
    "contiguous",
    "exclusive",
    "get-user-env",
    "hold",
    "ignore-pbs",
    "no-kill",
    "no-requeue",
    "nice",
    "overcommit",
    "oversubscribe",
    "parsable",
    "quiet",
    "reboot",
    "requeue",
    "spread-job",
    "test-only",
    "use-min-nodes",
    "verbose",
    "wait",
];

/// The options of a script.
#[must_use]
pub fn directives(text: &str) -> Vec<Directive> {
    let head = head(text).filter_map(|(line, text)| Some((line, of_slurm(text)?)));
    head.flat_map(|(line, rest)| options(line, &words(rest))).collect()
}

/// What stands behind `#SBATCH`. No blank is needed between it and the first dash.
fn of_slurm(line: &str) -> Option<&str> {
    line.strip_prefix("#SBATCH").filter(|rest| rest.starts_with([' ', '\t', '-']))
}

/// The lines that `sbatch` looks at, counted from 1. A comment may be indented, but a directive in it does not count then.
pub(super) fn head(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_head = |line: &&str| matches!(line.trim_ascii_start().chars().next(), None | Some('#'));
    text.lines().take_while(is_head).enumerate().map(|(index, line)| (index + 1, line))
}

/// Directives of PBS and LSF, which `sbatch` reads too unless it is told not to.
pub(super) fn of_others(text: &str) -> impl Iterator<Item = (usize, &str)> {
    head(text).filter(|(_, line)| line.starts_with("#PBS") || line.starts_with("#BSUB"))
}

/// The line that begins a further part of a heterogeneous job.
pub(super) fn heterogeneous(text: &str) -> Option<usize> {
    let begins =
        |line: &str| of_slurm(line).is_some_and(|own| matches!(own.trim(), "hetjob" | "packjob"));
    head(text).find(|(_, line)| begins(line)).map(|(line, _)| line)
}

/// The first `#SBATCH` line that comes too late to be read.
pub(super) fn late(text: &str) -> Option<usize> {
    let n_head = head(text).count();
    let mut lines = text.lines().enumerate().skip(n_head);
    lines.find(|(_, line)| of_slurm(line).is_some()).map(|(index, _)| index + 1)
}

/// The words of a line: blanks part them, quotes hold them together, `#` begins a comment.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in text.chars() {
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), close) if open == close => quote = None,
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// The options among words, as `sbatch` takes them.
#[must_use]
pub fn options(line: usize, words: &[String]) -> Vec<Directive> {
    let mut own = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (name, value) = if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            (name.to_owned(), value.map(str::to_owned))
        } else if let Some(short) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let mut rest = short.chars();
            let mut name = rest.next().map(long_name).unwrap_or_default();
            // Flags may stand in one word, as in `-QW`.
            while FLAGS.contains(&name.as_str())
                && let Some(next) = rest.clone().next().filter(char::is_ascii_alphabetic)
            {
                own.push(Directive { line, name, value: String::new() });
                rest.next();
                name = long_name(next);
            }
            let value = rest.as_str();
            (name, (!value.is_empty()).then(|| value.trim_start_matches('=').to_owned()))
        } else {
            continue;
        };
        let takes_next = value.is_none() && !FLAGS.contains(&name.as_str());
        let next = words.next_if(|next| takes_next && !next.starts_with('-')).cloned();
        let value = value.or(next).unwrap_or_default();
        own.push(Directive { line, name, value });
    }
    own
}

pub(super) fn long_name(letter: char) -> String {
    let long = SHORT.iter().find(|(own, _)| *own == letter);
    long.map_or_else(|| letter.to_string(), |(_, long)| (*long).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_sbatch_reads_them() {
        let text = "#!/bin/bash\n#SBATCH -J \"my job\" --time=1:00:00 # all of it\n##SBATCH --no\n\n# x\n\
                    #SBATCH --requeue -N2 --gres gpu:1\n#SBATCHX\necho\n#SBATCH --mem=1G\n";
        let found = directives(text);
        let found: Vec<(usize, &str, &str)> =
            found.iter().map(|own| (own.line, own.name.as_str(), own.value.as_str())).collect();
        assert_eq!(
            found,
            [
                (2, "job-name", "my job"),
                (2, "time", "1:00:00"),
                (6, "requeue", ""),
                (6, "nodes", "2"),
                (6, "gres", "gpu:1"),
            ]
        );
        let words = ["-QW", "-HJx", "-N2"].map(str::to_owned);
        let names: Vec<String> = options(0, &words).into_iter().map(|own| own.name).collect();
        assert_eq!(names, ["quiet", "wait", "hold", "job-name", "nodes"]);
        assert_eq!(late(text), Some(9));
        let indented = "#!/bin/sh\n \t# a\n\t#SBATCH -n2\n#SBATCH--time=5\n  \n#PBS -N x\n#SBATCH -n1\nx\n#PBS -N y";
        let names: Vec<String> = directives(indented).into_iter().map(|own| own.name).collect();
        assert_eq!((names, late(indented)), (vec!["time".to_owned(), "ntasks".to_owned()], None));
        assert_eq!(of_others(indented).collect::<Vec<_>>(), [(6, "#PBS -N x")]);
        assert_eq!(heterogeneous("#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n"), Some(3));
        assert_eq!(late("#!/bin/sh\n#SBATCH -n1\nx\n"), None);
    }
}
