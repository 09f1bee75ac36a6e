//! `MANIFEST`: what a committed checkpoint holds, with a hash per file; its last line hashes the lines above. Pure.

use std::fmt::Write;

use nemo_core::percent::{self, decode};

use super::hashing::Digest;

/// The manifest's own name in a checkpoint.
pub(crate) const NAME: &str = "MANIFEST";
const HEADER: &str = "nemo-manifest 1";

/// Whether the program saved a folder, whose files lie in the checkpoint directly, or one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointForm {
    Folder,
    File,
}

/// A part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ManifestEntry {
    File(Digest),
    Dir,
    /// A symbolic link, and what it says.
    Link(Vec<u8>),
}

/// A checkpoint's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) step: u64,
    /// Who committed it.
    pub(crate) attempt: u32,
    pub(crate) lease: String,
    pub(crate) form: CheckpointForm,
    /// The name that the program gave.
    pub(crate) entry: Vec<u8>,
    /// The length of `metrics.jsonl` then.
    pub(crate) metrics: u64,
    /// The step that the program had reported then, if this one was counted.
    pub(crate) reported: Option<u64>,
    /// By path, sorted.
    pub(crate) parts: Vec<(Vec<u8>, ManifestEntry)>,
}

/// Writes the text.
pub(crate) fn print(manifest: &Manifest) -> String {
    let Manifest { step, attempt, lease, form, entry, metrics, reported, parts } = manifest;
    let form = match form {
        CheckpointForm::Folder => "folder",
        CheckpointForm::File => "file",
    };
    let entry = encode(entry);
    let reported = reported.map_or_else(String::new, |step| format!("reported {step}\n"));
    let mut text = format!(
        "{HEADER}\nstep {step}\nattempt {attempt}\nlease {lease}\nkind {form}\nentry {entry}\nmetrics {metrics}\n{reported}"
    );
    for (path, part) in parts {
        let path = encode(path);
        let written = match part {
            ManifestEntry::File(digest) => {
                writeln!(text, "file {} {} {path}", digest.hash, digest.size)
            }
            ManifestEntry::Dir => writeln!(text, "dir {path}"),
            ManifestEntry::Link(target) => writeln!(text, "link {} {path}", encode(target)),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    let end = blake3::hash(text.as_bytes());
    text + &format!("end {end}\n")
}

/// Reads a text, and says what is wrong with one that is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let text = str::from_utf8(bytes).map_err(|_| "its MANIFEST is not text".to_owned())?;
    let header = text.lines().next().unwrap_or_default();
    if header != HEADER {
        let newer = header.starts_with("nemo-manifest ");
        let why = if newer {
            "is of a format that this nemo-harness does not know"
        } else {
            "is no manifest"
        };
        return Err(format!("its MANIFEST {why}"));
    }
    let torn = || "its MANIFEST is torn or was altered".to_owned();
    let (body, hash) =
        text.strip_suffix('\n').and_then(|text| text.rsplit_once("\nend ")).ok_or_else(torn)?;
    if blake3::hash(&text.as_bytes()[..=body.len()]).to_hex().as_str() != hash {
        return Err(torn());
    }
    lines(body).ok_or_else(torn)
}

fn lines(body: &str) -> Option<Manifest> {
    let mut lines = body.lines().skip(1).peekable();
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let step = field("step")?.parse().ok()?;
    let attempt = field("attempt")?.parse().ok()?;
    let lease = field("lease")?.to_owned();
    let form = match field("kind")? {
        "folder" => CheckpointForm::Folder,
        "file" => CheckpointForm::File,
        _ => return None,
    };
    let entry = decode(field("entry")?)?;
    let metrics = field("metrics")?.parse().ok()?;
    let reported = lines.next_if(|line| line.starts_with("reported "));
    let reported = reported.map(|line| line["reported ".len()..].parse()).transpose().ok()?;
    let parts = lines.map(part).collect::<Option<_>>()?;
    Some(Manifest { step, attempt, lease, form, entry, metrics, reported, parts })
}

fn part(line: &str) -> Option<(Vec<u8>, ManifestEntry)> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["file", hash, size, path] => {
            let hash = blake3::Hash::from_hex(hash).ok()?;
            Some((decode(path)?, ManifestEntry::File(Digest { hash, size: size.parse().ok()? })))
        }
        ["dir", path] => Some((decode(path)?, ManifestEntry::Dir)),
        ["link", target, path] => Some((decode(path)?, ManifestEntry::Link(decode(target)?))),
        _ => None,
    }
}

/// Whether a manifest lists a path in the checkpoint: all but the root and its own.
pub(super) fn lists(path: &[u8]) -> bool {
    !path.is_empty() && path != NAME.as_bytes()
}

/// Percent-encodes all but a few safe characters, so that a line is words between spaces.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    percent::encode(bytes, is_safe, &mut text);
    text
}

fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./+=,@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let digest = Digest { hash: blake3::hash(b"x"), size: 1 };
        let parts = vec![
            (b"a b\n%\xff".to_vec(), ManifestEntry::File(digest)),
            (b"d".to_vec(), ManifestEntry::Dir),
            (b"d/l".to_vec(), ManifestEntry::Link(b"../a b".to_vec())),
        ];
        let (lease, entry) = ("0f".to_owned(), b"step-60".to_vec());
        Manifest {
            step: 60,
            attempt: 2,
            lease,
            form: CheckpointForm::Folder,
            entry,
            metrics: 12,
            reported: Some(58),
            parts,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(print(&sample()).as_bytes()), Ok(sample()));
        let empty = Manifest {
            parts: Vec::new(),
            reported: None,
            form: CheckpointForm::File,
            entry: Vec::new(),
            ..sample()
        };
        assert_eq!(parse(print(&empty).as_bytes()), Ok(empty));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let text = print(&sample()).into_bytes();
        for at in 0..text.len() {
            assert!(parse(&text[..at]).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut altered = text.clone();
                altered[at] ^= 1 << bit;
                assert!(parse(&altered).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(parse(&[&text[..], b"x"].concat()).is_err());
        assert!(parse(b"nemo-manifest 2\n").unwrap_err().contains("format"));
    }

    proptest::proptest! {
        #[test]
        fn any_name_survives(name: Vec<u8>) {
            proptest::prop_assert_eq!(decode(&encode(&name)), Some(name));
        }
    }
}
