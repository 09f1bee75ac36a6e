//! Claims: files `<stem>.<n>.json`. Only one process can make each of them, and the highest number holds.
//!
//! A claim is a hard link to the next free name. Only one process can make it, even across hosts and on NFS. There is no
//! lock, so a process that dies leaves nothing to release.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{durable, open};

/// The claims of one kind in one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    folder: PathBuf,
    stem: &'static str,
}

/// The decision about the newest claim.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimDecision<T> {
    /// Claim this number, which must be higher than the newest.
    Claim(u32),
    /// Claim nothing.
    Leave(T),
}

/// The outcome of [`Claims::take`].
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimOutcome<T> {
    /// This process claimed this number.
    Claimed(u32),
    /// Nothing was claimed, for this reason.
    Left(T),
}

impl Claims {
    /// The claims called `<stem>.<n>.json` in a folder that exists.
    #[must_use]
    pub fn new(folder: &Path, stem: &'static str) -> Self {
        Self { folder: folder.to_owned(), stem }
    }

    /// The folder of the claims.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a claim.
    #[must_use]
    pub fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}.{number}.json", self.stem))
    }

    /// The highest number. None if there is no claim.
    pub fn newest(&self) -> io::Result<Option<u32>> {
        Ok(self.numbers()?.into_iter().max())
    }

    /// Claims a number with this content. `nonce` must be unique. `decide` gets the newest number, and again each time
    /// another process was faster. The claim is durable when this returns.
    pub fn take<T>(
        &self,
        nonce: &str,
        content: &[u8],
        mut decide: impl FnMut(Option<u32>) -> ClaimDecision<T>,
    ) -> io::Result<ClaimOutcome<T>> {
        let temporary = self.folder.join(format!(".tmp-{}-{nonce}", self.stem));
        let written = durable::write_synced(&temporary, content);
        let outcome = written.and_then(|()| self.link(&temporary, &mut decide));
        // The claim holds even if its temporary name can't be removed.
        fs::remove_file(&temporary).ok();
        if let Ok(ClaimOutcome::Claimed(number)) = &outcome {
            durable::sync_dir(&self.folder)?;
            self.remove_old(*number);
        }
        outcome
    }

    fn link<T>(
        &self,
        temporary: &Path,
        decide: &mut impl FnMut(Option<u32>) -> ClaimDecision<T>,
    ) -> io::Result<ClaimOutcome<T>> {
        // A listing of a shared disk may be old, so names that turned out to be taken are remembered.
        let (mut taken, mut looks) = (None, 0);
        loop {
            let number = match decide(self.newest()?.max(taken)) {
                ClaimDecision::Claim(number) => number,
                ClaimDecision::Leave(why) => return Ok(ClaimOutcome::Left(why)),
            };
            match fs::hard_link(temporary, self.path(number)) {
                Ok(()) => {}
                // NFS may lose the answer to a link that was made.
                Err(_) if self.is_made(number, temporary)? => self.see_made(number, temporary),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !wait_for_probe(&self.path(number), &mut looks) {
                        taken = Some(number);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.is_newest(number)? {
                return Ok(ClaimOutcome::Claimed(number));
            }
            // Others claimed in between and removed an old name that this claim then took. That does not count. They may have
            // removed this one too by now.
            match fs::remove_file(self.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }

    /// Whether a link was made although its answer was lost.
    fn is_made(&self, number: u32, temporary: &Path) -> io::Result<bool> {
        open::refresh(temporary);
        let own = fs::metadata(temporary)?;
        Ok(own.nlink() == 2
            || fs::symlink_metadata(self.path(number)).is_ok_and(|there| there.ino() == own.ino()))
    }

    /// After a lost answer this client may remember for half a minute that the name is not there, and could not ask about
    /// its own claim. The server's refusal of a second link makes it forget that.
    fn see_made(&self, number: u32, temporary: &Path) {
        let is_refused = || {
            let again = fs::hard_link(temporary, self.path(number));
            again.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
        };
        let _: bool = (0..SECOND_LINKS).any(|_| is_refused());
    }

    /// Whether no later claim was made, by a listing, which may be old on a shared disk. An error means that it is unknown.
    pub fn is_newest(&self, number: u32) -> io::Result<bool> {
        Ok(self.newest()?.is_none_or(|newest| newest <= number))
    }

    /// Like [`Claims::is_newest`], but asks the server of a shared disk instead of the cache.
    pub fn is_newest_exactly(&self, number: u32, nonce: &str) -> io::Result<bool> {
        Ok(self.is_newest(number)? && self.holds(number, nonce)?)
    }

    /// Both questions are changes, which only the server can make: a link to one's own file, which is gone once two later
    /// claims were made, and a folder of the next number, which can't be made where that is taken.
    fn holds(&self, number: u32, nonce: &str) -> io::Result<bool> {
        let probe = self.folder.join(format!(".tmp-probe-{nonce}"));
        match fs::hard_link(self.path(number), &probe) {
            Ok(()) => fs::remove_file(&probe)?,
            // One of an earlier question that was not answered.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&probe)?;
                return Err(error);
            }
            // It is gone once two later claims were made. One of them must be seen: an error alone proves nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_newest(number)? => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let next = self.path(number + 1);
        match fs::create_dir(&next) {
            Ok(()) => fs::remove_dir(&next).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if is_claim(&next) {
                    return Ok(false);
                }
                // What an earlier question left says nothing, and what is gone by now was one.
                fs::remove_dir(&next).ok();
                Err(error)
            }
            Err(error) => {
                fs::remove_dir(&next).ok(); // it may have been made, and the answer lost
                Err(error)
            }
        }
    }

    /// Removes temporary files of others, but not claims.
    pub fn clean(&self) {
        let claims = format!(".tmp-{}-", self.stem);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(b".tmp-") && !name.starts_with(claims.as_bytes()) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// Removes all but the two newest claims. The one before tells a later claim whom it follows.
    fn remove_old(&self, newest: u32) {
        let Ok(numbers) = self.numbers() else { return };
        for number in numbers.into_iter().filter(|number| number + 1 < newest) {
            drop(fs::remove_file(self.path(number))); // the next claim tries again
        }
    }

    fn numbers(&self) -> io::Result<Vec<u32>> {
        open::refresh(&self.folder);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                name.strip_prefix(self.stem)?.strip_prefix('.')?.strip_suffix(".json")
            });
            let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) else {
                continue;
            };
            match entry.file_type() {
                Ok(kind) if kind.is_file() => numbers.push(number),
                Ok(_) => {}
                // Where the listing does not tell the kind, a question may be over before it is looked at.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(numbers)
    }
}

/// How often a link whose answer was lost is tried again, to see it.
const SECOND_LINKS: u32 = 3;

/// How long a question of [`Claims::is_newest_exactly`] may take, and after how many looks its remains are removed: the
/// process that asked was killed.
const PROBE: Duration = Duration::from_millis(10);
const PROBES: u32 = 200;

/// Waits where a name is taken by somebody's question only, and says whether that is so.
fn wait_for_probe(path: &Path, looks: &mut u32) -> bool {
    if !is_probe(path) {
        return false;
    }
    *looks += 1;
    if *looks > PROBES {
        fs::remove_dir(path).ok();
    }
    std::thread::sleep(PROBE);
    true
}

fn is_probe(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn is_claim(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// A unique word for a claim.
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn next<T>(newest: Option<u32>) -> ClaimDecision<T> {
        ClaimDecision::Claim(newest.map_or(0, |number| number + 1))
    }

    #[test]
    fn many_at_once_get_different_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let claims = &Claims::new(folder.path(), "claim");
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let take = |nonce: String| match claims.take::<()>(&nonce, b"{}", next).unwrap() {
                ClaimOutcome::Claimed(number) => number,
                ClaimOutcome::Left(()) => panic!("nobody declined"),
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

    fn take(claims: &Claims, nonce: &str) -> u32 {
        match claims.take::<()>(nonce, nonce.as_bytes(), next).unwrap() {
            ClaimOutcome::Claimed(number) => number,
            ClaimOutcome::Left(()) => panic!("nobody declined"),
        }
    }

    #[test]
    fn the_exact_question_does_not_rest_on_a_listing() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path(), "claim");
        let holds = |number: u32| claims.holds(number, "nonce").unwrap();
        take(&claims, "a");
        assert!(holds(0));
        take(&claims, "b");
        assert!(!holds(0) && holds(1));
        take(&claims, "c");
        // The first one's file is gone, and so may be the second's that stood in its way.
        assert!(!holds(0) && !holds(1) && holds(2));
        assert!(claims.is_newest_exactly(2, "nonce").unwrap());
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "no probe is left");
    }

    #[test]
    fn a_claim_waits_for_a_probe_and_takes_the_place_of_one_that_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path(), "claim");
        fs::create_dir(claims.path(0)).unwrap();
        assert_eq!(take(&claims, "a"), 0);
    }

    #[test]
    fn those_who_ask_and_those_who_claim_do_not_mislead_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path(), "claim");
        take(&claims, "a");
        let answers = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| {
                while claims.is_newest_exactly(0, "a").unwrap_or(true) {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
            while answers.load(Ordering::Relaxed) < 10 {
                std::thread::yield_now();
            }
            // A probe that lasts long costs its number.
            let number = take(&claims, "b");
            assert!(number > 0);
            asks.join().unwrap();
            assert!(claims.is_newest_exactly(number, "b").unwrap());
        });
    }

    #[test]
    fn who_was_slower_decides_again() {
        let folder = tempfile::tempdir().unwrap();
        let claims = Claims::new(folder.path(), "claim");
        let mut seen = Vec::new();
        let outcome = claims.take("late", b"{}", |newest| {
            seen.push(newest);
            if seen.len() > 1 {
                return ClaimDecision::Leave("another one holds it");
            }
            // Another process claims between the look and the link.
            durable::write_synced(&claims.path(0), b"{}").unwrap();
            next(newest)
        });
        assert_eq!(outcome.unwrap(), ClaimOutcome::Left("another one holds it"));
        assert_eq!(seen, [None, Some(0)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary name is left");
    }
}
