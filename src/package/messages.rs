//! What people are told of a package: one line of what is shipped, and what they should know besides.

use std::path::Path;

use super::choose::{IGNORE_FILE, IgnoreFiles};
use super::{Survey, named};
use crate::experiment::PackageSource;
use crate::humanize::{bytes, count};

impl Survey {
    /// One line for people: what is shipped and what is only linked.
    #[must_use]
    pub fn summary(&self, hash: Option<&str>) -> String {
        let size: u64 = self.files.iter().map(|file| file.bytes).sum();
        let name = hash.map_or_else(String::new, |hash| format!(" as package {}", &hash[..8]));
        let files = count(self.files.len(), "file");
        let how = if self.source == self.root { "with" } else { "without" };
        let changes = match self.changes.len() {
            0 => String::new(),
            n => format!(", {how} {} not committed", count(n, "change")),
        };
        let linked = match self.beside.as_slice() {
            [] => String::new(),
            beside => format!("; linked, not shipped: {}", named(beside)),
        };
        let left_out = match self.left_out.as_slice() {
            [] => String::new(),
            outputs => format!("; left out, as each trial writes its own: {}", named(outputs)),
        };
        let has_file = self.left_out.iter().any(|path| self.root.join(path).is_file());
        let to_link =
            if has_file { " (a file that they only read is linked after `chmod a-w`)" } else { "" };
        let root = self.root.display();
        format!("{files} ({}) of `{root}`{name}{changes}{linked}{left_out}{to_link}", bytes(size))
    }

    /// What the user should know, though nothing is wrong.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let all = [
            self.unmatched_patterns(),
            self.shared_files(),
            self.nothing_shipped(),
            self.empty_submodules(),
        ];
        all.into_iter().flatten().collect()
    }

    fn nothing_shipped(&self) -> Option<String> {
        if !self.files.is_empty() {
            return None;
        }
        let (why, hint) = match self.from {
            _ if self.is_ignored() => (format!("`{IGNORE_FILE}` names all of"), ""),
            PackageSource::Git => {
                ("git ignores all of".to_owned(), "; `--set package.from=folder` ships it")
            }
            _ => ("there is no file in".to_owned(), ""),
        };
        Some(format!(
            "warning: nothing is shipped: {why} `{}`. Trials run what lies there, also what you edit later{hint}",
            self.root.display()
        ))
    }

    /// Whether the `.nemoignore` of the folder names all that is there: then it names itself too.
    fn is_ignored(&self) -> bool {
        let itself = [IGNORE_FILE.into()];
        IgnoreFiles::of(&self.source, &itself).names(Path::new(IGNORE_FILE))
    }

    fn empty_submodules(&self) -> Option<String> {
        (!self.not_checked_out.is_empty()).then(|| {
            format!(
                "warning: submodules that are not checked out are not shipped, {}: `git submodule update --init --recursive`",
                named(&self.not_checked_out)
            )
        })
    }

    fn unmatched_patterns(&self) -> Option<String> {
        let names: Vec<String> = self.unmatched.iter().map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| {
            format!(
                "warning: `package.include`: no file in `{}` is meant by {} (all files of a folder are \"folder/**\")",
                self.root.display(),
                names.join(", ")
            )
        })
    }

    fn shared_files(&self) -> Option<String> {
        (!self.shared.is_empty()).then(|| {
            format!(
                "warning: all trials have a link to {}: if they write there, they overwrite your file and each other's. \
                 Files that they only read are safe after `chmod a-w`",
                named(&self.shared)
            )
        })
    }
}
