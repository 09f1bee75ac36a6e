//! `checkpoint.from`: patterns of paths to which a program saves outside of `NEMO_CHECKPOINT_DIR`. `*` and `?` stay within a
//! name, `**` is any number of folders, and no wildcard stands for a name that begins with a dot.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::profile::{self, TooLarge};
use crate::rundir::Profile;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// Where one pattern looks.
#[derive(Clone, Debug)]
pub struct OwnPath {
    text: String,
    pattern: Pattern,
    /// What its last name says before its first wildcard and after its last; none where it has no wildcard.
    around: Option<(String, String)>,
}

/// Why a text is no pattern.
///
/// # Errors
/// The reason, for people.
pub fn check(text: &str) -> Result<(), String> {
    if text.trim_matches('/').is_empty() {
        return Err("it names nothing".to_owned());
    }
    if text.ends_with("**") {
        return Err("`**` at its end would be folders only".to_owned());
    }
    Pattern::new(text).map(drop).map_err(|error| error.msg.to_owned())
}

/// Why a text is not where a program looks for its checkpoint: what lies at the target makes room for the checkpoint, so it
/// must be nothing else. `from` are the patterns of the program's saves.
///
/// # Errors
/// The reason, for people, and what to write instead.
pub fn check_target<'a>(
    text: &str,
    from: impl IntoIterator<Item = &'a str>,
) -> Result<(), (String, String)> {
    let target = names_in(text);
    let hint = |folder: &str| {
        format!(
            "write the file that the program looks for, or \"{folder}/\" for a checkpoint in that folder"
        )
    };
    if target.contains(&"..") {
        let why = "`..` may lead to what is not the program's own".to_owned();
        return Err((why, "write the path from its top, with a `/` or `{dir}` first".to_owned()));
    }
    if text.ends_with('/') {
        return Ok(());
    }
    let shown = text.trim_end_matches("/.");
    if matches!(target[..], [] | ["{dir}"]) {
        let why =
            "it is a whole folder of the trial, which holds more than a checkpoint".to_owned();
        return Err((why, hint(shown)));
    }
    let is_below = |own: &[&str]| own.len() > target.len() && own.starts_with(&target);
    if let Some(own) = from.into_iter().find(|own| is_below(&names_in(own))) {
        let why = format!("`from` has {own:?} below it, so it holds more than one checkpoint");
        return Err((why, hint(shown)));
    }
    Ok(())
}

/// What a shell would replace in a path, and nothing else does: `~` before it, or a variable. Such a path means nothing.
#[must_use]
pub fn left_to_a_shell(text: &str) -> Option<&str> {
    if text == "~" || text.starts_with("~/") {
        return Some("~");
    }
    let is_name = |c: char| c.is_ascii_alphabetic() || "_{(".contains(c);
    let (at, _) = text.match_indices('$').find(|(at, _)| text[at + 1..].starts_with(is_name))?;
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || "_{($".contains(c));
    let rest = &text[at..];
    let end = rest.find(is_end).unwrap_or(rest.len());
    Some(&rest[..end + usize::from(rest[end..].starts_with(['}', ')']))])
}

/// The names of a path, one below the other.
fn names_in(text: &str) -> Vec<&str> {
    let top = text.starts_with('/').then_some("/");
    let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
    top.into_iter().chain(names).collect()
}

/// A text in which nothing is a wildcard.
#[must_use]
pub fn literal(text: &str) -> String {
    Pattern::escape(text)
}

impl OwnPath {
    /// A pattern below a folder, which is taken as it is. An absolute pattern stays what it is.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn new(folder: &Path, text: &str) -> Result<Self, String> {
        check(text)?;
        let below = format!("{}/{text}", literal(&folder.to_string_lossy()));
        let whole = if text.starts_with('/') { text } else { &below };
        // As `glob` and the kernel name what they find: `a//b` would mean nothing of it.
        let top = if whole.starts_with('/') { "/" } else { "" };
        let names: Vec<_> = names_in(whole).into_iter().filter(|name| *name != "/").collect();
        let whole = format!("{top}{}", names.join("/"));
        let pattern = Pattern::new(&whole).map_err(|error| error.msg.to_owned())?;
        let last = whole.rsplit('/').next().unwrap_or_default();
        let is_wildcard = |c: char| matches!(c, '*' | '?' | '[');
        let around = last.find(is_wildcard).map(|first| {
            let end = last.rfind(|c: char| is_wildcard(c) || c == ']').unwrap_or(first);
            (last[..first].to_owned(), last[end + 1..].to_owned())
        });
        Ok(Self { text: whole, pattern, around })
    }

    /// A path that it means, with a digit for each wildcard.
    #[must_use]
    pub fn sample(&self) -> String {
        let mut sample = String::new();
        let mut rest = self.text.as_str();
        while let Some(first) = rest.chars().next() {
            let bracket = rest.strip_prefix('[').and_then(|inside| {
                let first = inside.chars().next()?;
                let end = first.len_utf8() + inside[first.len_utf8()..].find(']')?;
                Some((first, &inside[end + 1..]))
            });
            if let Some(after) = rest.strip_prefix("**/") {
                rest = after;
            } else if let Some((first, after)) = bracket {
                sample.push(first);
                rest = after;
            } else {
                sample.push(if matches!(first, '*' | '?') { '0' } else { first });
                rest = &rest[first.len_utf8()..];
            }
        }
        sample
    }

    /// All that is there now. What can't be read is passed over.
    pub fn found(&self) -> Vec<PathBuf> {
        paths(&self.text)
    }

    /// The folders in which something may appear that it means.
    pub fn folders(&self) -> Vec<PathBuf> {
        let parent = self.text.rsplit_once('/').map_or("", |(parent, _)| parent);
        let mut folders = paths(if parent.is_empty() { "/" } else { parent });
        if let Some(top) = parent.strip_suffix("/**") {
            folders.extend(paths(top));
        }
        folders.retain(|folder| folder.is_dir());
        folders
    }

    /// Whether it means this path.
    #[must_use]
    pub fn means(&self, path: &Path) -> bool {
        self.pattern.matches_path_with(path, OPTIONS)
    }

    /// What every path that it means begins with.
    #[must_use]
    pub fn beginning(&self) -> &str {
        self.text.split(['*', '?', '[']).next().unwrap_or_default()
    }

    /// The completed steps that a name tells where its wildcards are: the last number there, or what its file's beginning
    /// tells with a profile. `resnet50.pt`, written out, tells none.
    ///
    /// # Errors
    /// The number is larger than any step.
    pub fn step(
        &self,
        profile: Option<Profile>,
        name: &str,
        is_file: bool,
        head: &[u8],
    ) -> Result<Option<u64>, TooLarge> {
        let Some((before, after)) = &self.around else {
            return match profile {
                Some(Profile::Lightning) => profile::step(profile, "", is_file, head),
                _ => Ok(None),
            };
        };
        let varies = name.strip_prefix(before.as_str()).unwrap_or(name);
        let varies = varies.strip_suffix(after.as_str()).unwrap_or(varies);
        match profile {
            Some(Profile::Lightning | Profile::Transformers) => {
                profile::step(profile, name, is_file, head)
            }
            _ => profile::step(profile, varies, is_file && after.is_empty(), head),
        }
    }
}

fn paths(pattern: &str) -> Vec<PathBuf> {
    let Ok(found) = glob::glob_with(pattern, OPTIONS) else { return Vec::new() };
    found.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn step(pattern: &str, name: &str) -> Result<Option<u64>, TooLarge> {
        OwnPath::new(Path::new("/x"), pattern).unwrap().step(None, name, true, b"")
    }

    #[test]
    fn a_step_is_told_where_the_wildcard_is() {
        assert_eq!(step("out/ckpt-*.pt", "ckpt-60.pt"), Ok(Some(60)));
        assert_eq!(step("out/resnet50-*.pt", "resnet50-best.pt"), Ok(None));
        assert_eq!(step("out/resnet50.pt", "resnet50.pt"), Ok(None));
        assert_eq!(step("out/*", "step-60.h5"), Ok(Some(60)));
        assert_eq!(step("out/*.ckpt", "epoch=3-step=120.ckpt"), Ok(Some(120)));
        assert_eq!(step("out/ckpt_[0-9]*", "ckpt_77"), Ok(Some(77)));
        assert_eq!(step("out/step-*", "step-99999999999999999999999"), Err(TooLarge));
        let own = OwnPath::new(Path::new("/x"), "last.ckpt").unwrap();
        let head = b"global_stepK\x07";
        assert_eq!(own.step(Some(Profile::Lightning), "last.ckpt", true, head), Ok(Some(7)));
    }

    #[test]
    fn a_path_is_the_same_however_it_is_spelled() {
        for text in ["out/a-*.pt", "./out/./a-*.pt", "out//a-*.pt", "/x/work//out/a-*.pt"] {
            let own = OwnPath::new(Path::new("/x/work/"), text).unwrap();
            assert!(own.means(Path::new("/x/work/out/a-7.pt")), "{text}");
        }
    }

    #[test]
    fn patterns_that_can_mean_nothing_are_refused() {
        for text in ["", "/", "out/**", "a[b", "a/***/b"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check("runs/**/last.ckpt").is_ok());
    }

    #[test]
    fn what_only_a_shell_would_replace_is_found() {
        for (text, word) in [
            ("~/a.pt", Some("~")),
            ("out/$RUN/a.pt", Some("$RUN")),
            ("${HOME}/a", Some("${HOME}")),
            ("out/$(hostname)/a", Some("$(hostname)")),
            ("a/~/b$", None),
            ("out/$5-{dir}.pt", None),
        ] {
            assert_eq!(left_to_a_shell(text), word, "{text}");
        }
    }

    #[test]
    fn a_sample_is_meant_by_its_pattern() {
        for text in ["out/ckpt-1*.pt", "a/**/last.ckpt", "x[0-9]?y", "a[[]b*", "plain", "*.pt"] {
            let own = OwnPath::new(Path::new("/x[1]"), text).unwrap();
            assert!(own.means(Path::new(&own.sample())), "{text}: {:?}", own.sample());
            assert!(own.sample().starts_with(own.beginning()), "{text}");
        }
    }

    #[test]
    fn a_target_is_one_checkpoint_and_nothing_else() {
        let from = ["out/checkpoint-*", "{dir}/saves/**/last.ckpt", "last.pt", "/abs/a/*"];
        for text in [
            ".",
            "./.",
            "{dir}",
            "{dir}/.",
            "out",
            "./out",
            "..",
            "../x.pt",
            "a/../b",
            "../",
            "{dir}/saves",
            "/abs",
        ] {
            assert!(check_target(text, from).is_err(), "{text}");
        }
        for text in [
            "out/",
            "./",
            "{dir}/",
            "last.pt",
            "{dir}/last.pt",
            "outer",
            "out/best.pt",
            "{dir}/saves/",
        ] {
            assert_eq!(check_target(text, from), Ok(()), "{text}");
        }
        assert!(check_target("out", from).unwrap_err().1.contains("\"out/\""));
    }

    #[test]
    fn what_is_there_is_found_nested_too_and_hidden_names_are_not() {
        let top = tempfile::tempdir().unwrap();
        let odd = top.path().join("a[1]");
        fs::create_dir_all(odd.join("runs/v0/x")).unwrap();
        for name in ["runs/last.ckpt", "runs/v0/x/last.ckpt", "runs/.last.ckpt"] {
            fs::File::options().write(true).create_new(true).open(odd.join(name)).unwrap();
        }
        let own = OwnPath::new(&odd, "runs/**/last.ckpt").unwrap();
        let expected = [odd.join("runs/last.ckpt"), odd.join("runs/v0/x/last.ckpt")];
        assert_eq!(own.found(), expected);
        assert!(expected.iter().all(|path| own.means(path)));
        assert!(own.folders().contains(&odd.join("runs")));
        assert!(own.folders().contains(&odd.join("runs/v0/x")));
        assert_eq!(OwnPath::new(&odd, "./runs/*.ckpt").unwrap().found(), expected[..1]);
    }
}
