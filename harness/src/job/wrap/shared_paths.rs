//! Whether two tasks of a wrapped array save to one path: each would overwrite what the other one saves, and resume from it.

use std::path::Path;

use nemo_core::own_paths::{self, OwnPath};
use nemo_core::placeholder::{BuiltIn, TemplatePart, scan};
use nemo_core::rundir::TaskSpec;
use nemo_core::{checksum, open};

use super::folder;
use crate::monitor::alarms::Alarm;

/// With so many others a task is compared: those that share a path mostly all do.
const OTHERS: usize = 32;

/// Where one task saves, and where it looks for its checkpoint.
#[derive(Clone, Copy, Debug)]
struct SavePaths<'a> {
    trial: u32,
    workdir: &'a Path,
    from: &'a [String],
    restore_to: Option<&'a str>,
}

/// What is to be told, if another task that has been here saves where this one does. The tasks of an array have one command,
/// in which a variable may differ; those of another working folder share no relative path.
pub(super) fn alarm(task_dir: &Path, own: &TaskSpec, trial: u32) -> Option<Alarm> {
    let own = SavePaths::of(own, trial);
    if own.from.is_empty() && own.restore_to.is_none() {
        return None;
    }
    let others = folder::trials_here(task_dir).filter(|other| *other != trial).take(OTHERS);
    others.into_iter().find_map(|other| {
        let text = open::read(&task_dir.join(folder::spec_name(other))).ok()?;
        let theirs = checksum::from_slice::<TaskSpec>(&text).ok()?;
        own.shared_with(&SavePaths::of(&theirs, other)).map(|text| shared_path_alarm(text, other))
    })
}

fn shared_path_alarm(text: &str, other: u32) -> Alarm {
    Alarm {
        code: "path-shared",
        message: format!(
            "task {other} of this array saves to `{text}` too: each overwrites the other's checkpoint, and may resume from it"
        ),
        hint: "let each task save to a path of its own, and name it: `--from \"out/$SLURM_ARRAY_TASK_ID/ckpt.pt\"`; or start it in \
               a folder of its own (`cd \"$SLURM_ARRAY_TASK_ID\"`)",
    }
}

impl<'a> SavePaths<'a> {
    fn of(spec: &'a TaskSpec, trial: u32) -> Self {
        let restore_to = spec.checkpoint.restore_to.as_deref();
        Self { trial, workdir: &spec.workdir, from: &spec.checkpoint.from, restore_to }
    }

    /// The path that another task means too, as it was written.
    fn shared_with(&self, other: &SavePaths<'_>) -> Option<&'a str> {
        let theirs = other.patterns();
        let is_theirs = |own: &OwnPath| theirs.iter().any(|(_, other)| meet(own, other));
        self.patterns().into_iter().find(|(_, own)| is_theirs(own)).map(|(text, _)| text)
    }

    /// The paths as they were written and as they are meant. A folder to restore to may hold the checkpoints of several.
    fn patterns(&self) -> Vec<(&'a str, OwnPath)> {
        let target = self.restore_to.into_iter().filter(|text| !text.ends_with('/'));
        let from = self.from.iter().map(|text| (text.as_str(), false));
        let texts = from.chain(target.map(|text| (text, true)));
        let pattern = |(text, is_literal)| {
            let filled = filled(text, self.trial, is_literal);
            Some((text, OwnPath::new(self.workdir, &filled).ok()?))
        };
        texts.filter_map(pattern).collect()
    }
}

/// Whether one of the two means a path of the other's.
fn meet(one: &OwnPath, other: &OwnPath) -> bool {
    one.means(Path::new(&other.sample())) || other.means(Path::new(&one.sample()))
}

/// A path as a pattern. Where a placeholder differs between trials, the trial stands for it.
fn filled(text: &str, trial: u32, is_literal: bool) -> String {
    let part = |part| match part {
        TemplatePart::Text(text) if is_literal => own_paths::literal(text),
        TemplatePart::Text(text) => text.to_owned(),
        TemplatePart::Name(name) => match BuiltIn::of(name) {
            Some(BuiltIn::Dir) => own_paths::literal(&format!("/{{dir}}/{trial}")),
            Some(BuiltIn::Trial | BuiltIn::Seed) => format!("{trial:010}"),
            _ => own_paths::literal(&format!("{{{name}}}")),
        },
    };
    scan(text).into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(first: (&str, &str), second: (&str, &str)) -> Option<String> {
        let from = |text: &str| vec![text.to_owned()];
        let (one, other) = (from(first.1), from(second.1));
        let paths = |trial, workdir, from| SavePaths {
            trial,
            workdir: Path::new(workdir),
            from,
            restore_to: None,
        };
        paths(1, first.0, &*one).shared_with(&paths(2, second.0, &*other)).map(str::to_owned)
    }

    #[test]
    fn tasks_share_what_both_mean() {
        let check = |one: &str, other: &str, expected: bool| {
            assert_eq!(share(("/w", one), ("/w", other)).is_some(), expected, "{one} {other}");
        };
        check("out/ckpt.pt", "out/ckpt.pt", true);
        check("out/1.pt", "out/2.pt", false); // a variable tells them apart
        check("out/1.pt", "out/*.pt", true);
        check("out/*.pt", "out/2.pt", true);
        check("{dir}/ckpt.pt", "{dir}/ckpt.pt", false);
        check("{trial}/ckpt.pt", "{trial}/ckpt.pt", false);
        check("{task}/ckpt.pt", "{task}/ckpt.pt", true);
        assert_eq!(share(("/w", "/s/a.pt"), ("/v", "/s/a.pt")).as_deref(), Some("/s/a.pt"));
        assert_eq!(share(("/w", "a.pt"), ("/v", "a.pt")), None, "another working folder");
    }

    #[test]
    fn a_file_to_restore_to_is_shared_and_a_folder_is_not() {
        let paths = |restore_to| {
            let workdir = Path::new("/w");
            SavePaths { trial: 1, workdir, from: &[], restore_to }
        };
        let shared = |own: SavePaths<'static>| own.shared_with(&own);
        assert_eq!(shared(paths(Some("last[1].pt"))), Some("last[1].pt"));
        assert_eq!(shared(paths(Some("ckpt/"))), None);
        assert_eq!(shared(paths(None)), None, "it saves to NEMO_CHECKPOINT_DIR");
    }

    #[test]
    fn the_path_and_what_to_type_are_named() {
        let told = shared_path_alarm("out/ckpt.pt", 3);
        assert!(told.message.contains("task 3") && told.message.contains("`out/ckpt.pt`"));
        assert!(told.hint.contains("--from \"out/$SLURM_ARRAY_TASK_ID/"));
    }
}
