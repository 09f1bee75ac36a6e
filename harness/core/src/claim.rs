//! Claims: files `<stem>.<n>.json`, each of which one process alone can make. The highest number holds.
//!
//! A claim is a link to the next free name, which only one process can make, over hosts and on NFS too. No lock is
//! held, so that nothing need be given back by a process that died.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::durable;

/// The claims of one kind in one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    folder: PathBuf,
    stem: &'static str,
}

/// What the newest claim leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<T> {
    /// Claim this number, which must be higher than the newest.
    Claim(u32),
    /// Claim nothing.
    Leave(T),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// This number was claimed.
    Claimed(u32),
    /// Nothing was.
    Left(T),
}

impl Claims {
    /// The claims called `<stem>.<n>.json` in a folder that exists.
    #[must_use]
    pub fn new(folder: &Path, stem: &'static str) -> Self {
        Self { folder: folder.to_owned(), stem }
    }

    /// Where the claims lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the claim of a number lies.
    #[must_use]
    pub fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}.{number}.json", self.stem))
    }

    /// The highest number; none where nobody claimed.
    pub fn newest(&self) -> io::Result<Option<u32>> {
        Ok(self.numbers()?.into_iter().max())
    }

    /// Claims a number with this content, which goes by a name that no other claim has. `decide` sees the newest number,
    /// again each time that another process was quicker. The claim is durable when this returns.
    pub fn take<T>(
        &self,
        nonce: &str,
        content: &[u8],
        mut decide: impl FnMut(Option<u32>) -> Decision<T>,
    ) -> io::Result<Outcome<T>> {
        let temporary = self.folder.join(format!(".tmp-{}-{nonce}", self.stem));
        durable::write_synced(&temporary, content)?;
        let outcome = self.link(&temporary, &mut decide);
        fs::remove_file(&temporary)?;
        if let Ok(Outcome::Claimed(number)) = &outcome {
            durable::sync_dir(&self.folder)?;
            self.remove_old(*number);
        }
        outcome
    }

    fn link<T>(
        &self,
        temporary: &Path,
        decide: &mut impl FnMut(Option<u32>) -> Decision<T>,
    ) -> io::Result<Outcome<T>> {
        // A listing of a shared disk may be old: a name that was found to be taken is known all the same.
        let mut taken = None;
        loop {
            let number = match decide(self.newest()?.max(taken)) {
                Decision::Claim(number) => number,
                Decision::Leave(why) => return Ok(Outcome::Left(why)),
            };
            match fs::hard_link(temporary, self.path(number)) {
                Ok(()) => {}
                // NFS may lose the answer to a link that was made.
                Err(_) if fs::metadata(temporary)?.nlink() == 2 => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    taken = Some(number);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.is_newest(number)? {
                return Ok(Outcome::Claimed(number));
            }
            // Others came between, and removed an old name that this claim then took: it is no number of its own.
            fs::remove_file(self.path(number))?;
        }
    }

    /// Whether no later claim was made. An error says neither.
    pub fn is_newest(&self, number: u32) -> io::Result<bool> {
        Ok(self.newest()? == Some(number))
    }

    /// The two newest stay: the one before tells a later claim whom it follows.
    fn remove_old(&self, newest: u32) {
        let Ok(numbers) = self.numbers() else { return };
        for number in numbers.into_iter().filter(|number| number + 1 < newest) {
            drop(fs::remove_file(self.path(number))); // the next claim tries again
        }
    }

    fn numbers(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix(self.stem)?.strip_prefix('.')?.strip_suffix(".json")
            });
            numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
        }
        Ok(numbers)
    }
}

/// A word that no other claim has.
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next<T>(newest: Option<u32>) -> Decision<T> {
        Decision::Claim(newest.map_or(0, |number| number + 1))
    }

    #[test]
    fn many_at_once_get_different_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let claims = &Claims::new(folder.path(), "claim");
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let take = |nonce: String| match claims.take::<()>(&nonce, b"{}", next).unwrap() {
                Outcome::Claimed(number) => number,
                Outcome::Left(()) => panic!("nobody declined"),
            };
            let threads: Vec<_> =
                (0..8).map(|nonce| scope.spawn(move || take(nonce.to_string()))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // A number may be left out: whoever was overtaken gives its own up again. None is given twice.
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 8, "{numbers:?}");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert!(names <= 2, "old claims and temporary names are gone");
    }

    #[test]
    fn who_was_slower_decides_again() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path(), "claim");
        let mut seen = Vec::new();
        let outcome = claims.take("late", b"{}", |newest| {
            seen.push(newest);
            if seen.len() > 1 {
                return Decision::Leave("another one holds it");
            }
            // Another process claims between the look and the link.
            durable::write_synced(&claims.path(0), b"{}").unwrap();
            next(newest)
        });
        assert_eq!(outcome.unwrap(), Outcome::Left("another one holds it"));
        assert_eq!(seen, [None, Some(0)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary name is left");
    }
}
