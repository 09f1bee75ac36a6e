//! What the name of a file says: a log, a name that is another one in each run, one that is not to be compared. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use glob::{MatchOptions, Pattern};
use regex_lite::Regex;

/// `rehearse.ignore` and `rehearse.noise`: patterns of files, of the names in them, and of metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamePatterns(Vec<Pattern>);

impl NamePatterns {
    /// Reads the patterns; those that are none were refused with the file that they stand in.
    #[must_use]
    pub fn new(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| Pattern::new(text).ok()).collect())
    }

    /// Whether a file is meant: by its whole path, or by the name of it or of a folder that it is in.
    #[must_use]
    pub fn has_file(&self, path: &str) -> bool {
        self.has(path) || Path::new(path).iter().any(|part| self.has(&part.to_string_lossy()))
    }

    /// Whether an array or a value is meant: by its name, or by its file.
    #[must_use]
    pub fn has_part(&self, path: &str, part: &str) -> bool {
        self.has_file(path) || (!part.is_empty() && self.has(part))
    }

    /// Whether a name is meant.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let options = MatchOptions { require_literal_leading_dot: false, ..MatchOptions::new() };
        self.0.iter().any(|pattern| pattern.matches_with(name, options))
    }
}

/// Whether a file is a log by its name: it tells of its run, and is another one in each.
#[must_use]
pub fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_batch = name == "nohup.out"
        || (name.starts_with("slurm-") && path.extension().is_some_and(|end| end == "out"));
    let is_named = [".log", ".err", ".stdout", ".stderr"].iter().any(|end| {
        // `md.part0002.log`, and what is rotated: `train.log.1`.
        name.ends_with(end)
            || name.rsplit_once('.').is_some_and(|(own, number)| {
                own.ends_with(end) && number.bytes().all(|byte| byte.is_ascii_digit())
            })
    });
    is_batch
        || is_named
        || name.contains("events.out.tfevents")
        || path.iter().any(|part| part == "wandb")
}

/// The files of OCDBT databases, as Orbax writes them: a manifest, and a folder of nodes that name each other at random.
/// Nothing here reads them, so they say nothing.
#[must_use]
pub fn ocdbt_files(paths: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let manifests = paths.iter().filter(|path| path.ends_with("manifest.ocdbt"));
    let folders: BTreeSet<PathBuf> =
        manifests.filter_map(|path| Some(path.parent()?.join("d"))).collect();
    let is_part = |path: &Path| {
        path.ends_with("manifest.ocdbt")
            || path.parent().is_some_and(|folder| folders.contains(folder))
    };
    paths.iter().filter(|path| is_part(path)).cloned().collect()
}

/// Whether a file holds settings by its name: they are the same whatever the program does.
#[must_use]
pub fn is_settings(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    let is_kind = ["yaml", "yml", "toml"].contains(&end);
    let is_named = ["args", "settings", "hparams"].iter().any(|word| name.contains(word));
    is_kind || is_named || (name.contains("config") && end == "json")
}

/// Whether a file is part of an OCDBT database.
#[must_use]
pub fn is_database(path: &Path) -> bool {
    path.ends_with("manifest.ocdbt")
}

#[expect(clippy::unwrap_used, reason = "patterns of our own, which a test reads")]
static RANDOM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}", // UUID
        r"|(?:19|20)[0-9]{2}[-_.]?[01][0-9][-_.]?[0-3][0-9]",                           // a date
        r"|[0-2][0-9][-_:.h][0-5][0-9][-_:.m][0-5][0-9]", // a time of the day
        r"|[12][0-9]{9}(?:[0-9]{3}|[0-9]{6}|[0-9]{9})?",  // unix time
        r"|tmp[a-z0-9_]{6,}",
        r"|[0-9a-f]{16,}|[0-9A-F]{16,}",
    ))
    .unwrap()
});

/// A token of letters and digits that nobody would choose, such as `k3j9x2`.
fn is_random_word(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let letters = word.len() - digits;
    // The digits of `resnet50` and `step100` stand at the end.
    let inner = word.trim_end_matches(|c: char| c.is_ascii_digit());
    word.len() >= 6 && digits >= 2 && letters >= 2 && inner.bytes().any(|b| b.is_ascii_digit())
}

/// The name with `*` for what is random in it; none where nothing is.
#[must_use]
pub fn pattern(path: &str) -> Option<String> {
    let shown = RANDOM.replace_all(path, "*");
    let mut pattern = String::new();
    for part in shown.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_random_word(word) {
            pattern.push('*');
            pattern.push_str(&part[word.len()..]);
        } else {
            pattern.push_str(part);
        }
    }
    (pattern != path).then_some(pattern)
}

/// Files of each pattern of names.
#[must_use]
pub fn by_pattern<'a>(
    paths: impl Iterator<Item = &'a PathBuf>,
) -> BTreeMap<String, Vec<&'a PathBuf>> {
    let mut groups: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
    for path in paths {
        if let Some(pattern) = pattern(&path.display().to_string()) {
            groups.entry(pattern).or_default().push(path);
        }
    }
    groups
}

#[expect(clippy::unwrap_used, reason = "a pattern of our own, which a test reads")]
static MOMENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?:19|20)[0-9]{2}[-/.][01]?[0-9][-/.][0-3]?[0-9]",
        r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? [A-Z0-9][A-Za-z0-9 ]{4,14}",
        r"|[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:[.,][0-9]+)?)?(?:Z|[+-][0-2][0-9]:?[0-5][0-9])?",
        r"|\b1[6-9][0-9]{8}(?:\.[0-9]+)?\b",
    ))
    .unwrap()
});

/// The text without its dates and times of the day.
#[must_use]
pub fn without_moments(text: &str) -> String {
    MOMENT.replace_all(text, "*").into_owned()
}

/// A name with `#` for its numbers.
#[must_use]
pub fn shape(name: &str) -> String {
    let mut shape = String::new();
    for letter in name.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !shape.ends_with('#') {
            shape.push(letter);
        }
    }
    shape
}

/// Whether a name says that its value is of a clock or of the machine.
#[must_use]
pub fn is_clock(name: &str) -> bool {
    let last = name.rsplit(['.', '/']).next().unwrap_or_default().to_ascii_lowercase();
    let words = ["time", "date", "seconds", "elapsed", "duration", "timestamp", "hostname", "pid"];
    last.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| words.contains(&word))
}

/// Whether a name says that its value follows from the number of steps or from the machine's speed, whatever the weights
/// are: `lr-AdamW`, `train/epoch`, `samples_per_second`, and not `loss_epoch`.
#[must_use]
pub fn is_schedule(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    name.contains("learning_rate")
        || words.clone().any(|word| word == "lr" || SIZES.contains(&word))
        || words.all(|word| SCHEDULE.contains(&word))
}

/// Of the model or the machine, whatever the values of its weights are.
const SIZES: [&str; 7] = ["flops", "flos", "mem", "memory", "parameters", "params", "vram"];

const SCHEDULE: [&str; 18] = [
    "epoch",
    "epochs",
    "global",
    "iter",
    "iteration",
    "iterations",
    "its",
    "num",
    "per",
    "sample",
    "samples",
    "sec",
    "second",
    "step",
    "steps",
    "tokens",
    "total",
    "train",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_told_from_chosen_ones() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(pattern(name).as_deref(), expected, "{name}");
        };
        for name in ["step-10.json", "resnet50.pt", "a/weights.npy", "0000000010.bin", "gpt2.bin"] {
            check(name, None);
        }
        check("run-20261130.json", Some("run-*.json"));
        check("2026-11-30_05-01-22/m.json", Some("*_*/m.json"));
        check("d/0a1b2c3d4e5f60718293", Some("d/*"));
        check("tmpab3_x9q1.bin", Some("*.bin"));
        check("trial_k3j9x2.txt", Some("trial_*.txt"));
        check("5f0c8a4e-1111-4222-8333-123456789abc.pkl", Some("*.pkl"));
    }

    #[test]
    fn logs_are_known_by_their_names() {
        let check = |name: &str, expected| assert_eq!(is_log(Path::new(name)), expected, "{name}");
        for name in ["md.log", "a/train.log.1", "0.err", "tb/events.out.tfevents.17.n.1.0"] {
            check(name, true);
        }
        for name in ["catalog", "log.json", "out/weights.npy", "blog.txt"] {
            check(name, false);
        }
    }

    #[test]
    fn settings_are_known_by_their_names() {
        for name in ["m/config.json", "generation_config.json", "training_args.bin", "a.yml"] {
            assert!(is_settings(Path::new(name)), "{name}");
        }
        for name in ["config/metrics.json", "model.safetensors", "all_results.json"] {
            assert!(!is_settings(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn a_database_of_orbax_is_known_by_its_manifest() {
        let paths: BTreeSet<PathBuf> =
            ["a/manifest.ocdbt", "a/d/0f", "a/_METADATA", "b/d/0f"].map(PathBuf::from).into();
        let expected: BTreeSet<PathBuf> = ["a/manifest.ocdbt", "a/d/0f"].map(PathBuf::from).into();
        assert_eq!(ocdbt_files(&paths), expected);
    }

    #[test]
    fn what_follows_from_the_step_is_told_from_what_is_measured() {
        for name in [
            "lr",
            "lr-AdamW/pg1",
            "train/learning_rate",
            "epoch",
            "samples_per_second",
            "tokens",
            "max_memory",
            "n_params",
            "total_flos",
        ] {
            assert!(is_schedule(name), "{name}");
        }
        for name in ["loss", "train_loss_epoch", "val/acc_step", "perplexity", "flr"] {
            assert!(!is_schedule(name), "{name}");
        }
    }

    #[test]
    fn moments_are_taken_out_of_a_text() {
        let check = |one: &str, other: &str, are_equal: bool| {
            assert_eq!(without_moments(one) == without_moments(other), are_equal, "{one} {other}");
        };
        check("saved 2026-11-30 05:01:22", "saved 2026-12-01T17:22:01.5Z", false);
        check("at 2026-11-30T05:01:22Z", "at 2026-12-01T17:22:01.5Z", true);
        check("Mon Nov 30 05:01:22 2026", "Tue Dec  1 05:01:22 2026", true);
        check("t=1764500000.25 x=1", "t=1764503333 x=1", true);
        check("loss 0.25", "loss 0.26", false);
    }

    #[test]
    fn patterns_mean_files_folders_and_names() {
        let patterns = NamePatterns::new(&["*.tmp".into(), "plots".into(), "config.*".into()]);
        assert!(patterns.has_file("a/b.tmp") && patterns.has_file("plots/loss.svg"));
        assert!(patterns.has_part("s.pt", "config.out") && !patterns.has_part("s.pt", "model.w"));
    }
}
