//! Options of `wrap` that were typed: how they stand in a script. Pure.

use super::directives::words;
use crate::script::shell_word;

/// The options whose values are paths. A variable in one is meant for the job, such as `out/$SLURM_ARRAY_TASK_ID/ckpt.pt`.
const PATHS: [&str; 3] = ["--dir", "--from", "--restore-to"];

/// The words of texts that were typed: `--dir=x` is `--dir x`.
#[must_use]
pub fn typed_words(texts: &[String]) -> Vec<String> {
    let mut words = texts.iter().flat_map(|text| words(text));
    let mut own = Vec::new();
    while let Some(word) = words.next() {
        match word.split_once('=').filter(|(name, _)| name.starts_with("--")) {
            Some((name, value)) => own.extend([name.to_owned(), value.to_owned()]),
            // What follows is its value, whatever it looks like.
            None => own.extend(std::iter::once(word).chain(words.next())),
        }
    }
    own
}

/// The options as words of a script, whose shell replaces the variables of paths.
pub(super) fn in_script(options: &[String]) -> Vec<String> {
    let word = |(is_path, text): (bool, &String)| {
        if is_path && text.contains('$') { replaced_there(text) } else { shell_word(text) }
    };
    with_kinds(options).map(word).collect()
}

/// The options without the variables of paths, for who reads them before there is a job.
#[must_use]
pub fn before_the_job(options: &[String]) -> Vec<String> {
    let word = |(is_path, text): (bool, &String)| {
        if is_path { without_variables(text) } else { text.clone() }
    };
    with_kinds(options).map(word).collect()
}

/// Each option, and whether it is the value of one that takes a path.
fn with_kinds(options: &[String]) -> impl Iterator<Item = (bool, &String)> {
    let before = std::iter::once("").chain(options.iter().map(String::as_str));
    before.zip(options).map(|(before, own)| (PATHS.contains(&before), own))
}

/// In double quotes, in which a shell replaces variables and runs nothing.
fn replaced_there(text: &str) -> String {
    let mut word = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let is_variable = letter == '$' && variable(rest).is_some();
        if "\"\\`".contains(letter) || (letter == '$' && !is_variable) {
            word.push('\\');
        }
        word.push(letter);
        rest = &rest[letter.len_utf8()..];
    }
    format!("\"{word}\"")
}

fn without_variables(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        let length = variable(&rest[at..]);
        plain.push(if length.is_some() { '0' } else { '$' });
        rest = &rest[at + length.unwrap_or(1)..];
    }
    plain + rest
}

/// The length of the variable that a text begins with: `$NAME` or `${NAME}`.
fn variable(text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (name, around) = if let Some(rest) = text.strip_prefix("${") {
        (rest.split_once('}')?.0, 3)
    } else {
        let rest = text.strip_prefix('$')?;
        (&rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())], 1)
    };
    let is_name = name.chars().all(is_part) && name.starts_with(|c: char| !c.is_ascii_digit());
    is_name.then_some(name.len() + around)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_follow_an_equals_sign() {
        let typed = ["--dir=a --metric 'x=y' --from=\"b c\"".to_owned()];
        assert_eq!(typed_words(&typed), ["--dir", "a", "--metric", "x=y", "--from", "b c"]);
    }

    #[test]
    fn variables_of_paths_are_the_jobs() {
        let check = |options: &[&str], written: &[&str], before: &[&str]| {
            let options: Vec<String> = options.iter().map(|own| (*own).to_owned()).collect();
            assert_eq!(in_script(&options), written);
            assert_eq!(before_the_job(&options), before);
        };
        check(
            &["--from", "out/$SLURM_ARRAY_TASK_ID/c*.pt", "--restore-to", "${HOME}x/a b"],
            &["--from", "\"out/$SLURM_ARRAY_TASK_ID/c*.pt\"", "--restore-to", "\"${HOME}x/a b\""],
            &["--from", "out/0/c*.pt", "--restore-to", "0x/a b"],
        );
        check(&["--dir", "a b"], &["--dir", "'a b'"], &["--dir", "a b"]);
        let command = "cp c $NEMO_CHECKPOINT_DIR";
        check(
            &["--save-command", command, "--metric", "x=(.)$"],
            &["--save-command", "'cp c $NEMO_CHECKPOINT_DIR'", "--metric", "'x=(.)$'"],
            &["--save-command", command, "--metric", "x=(.)$"],
        );
        check(
            &["--dir", "$(rm x)`y`$5"],
            &["--dir", "\"\\$(rm x)\\`y\\`\\$5\""],
            &["--dir", "$(rm x)`y`$5"],
        );
    }
}
