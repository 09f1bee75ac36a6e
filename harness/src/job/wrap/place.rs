//! Where the state of a wrapped job lies: `jobs/<id>` in the home is a folder, or a link to `--dir`, and `jobs/by-id/` finds
//! it again by the number of the job.
//!
//! A number may come again, and the tasks of an array start side by side. So a link by number is made once and is never
//! changed: `<number>@<cluster>`, then `<number>@<cluster>.1` and so on. The last one counts.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nemo_core::durable;
use nemo_core::rundir::ExperimentDir;

use super::copies;
use super::folder::read_id;
use super::own_job::OwnJob;
use crate::os::clock::unix_now;
use crate::os::log::log_info;

/// Where a job may keep its state.
#[derive(Debug)]
pub(super) struct StatePlace<'a> {
    /// `jobs/` in the home.
    pub(super) jobs: &'a Path,
    /// `--dir`, which exists.
    pub(super) dir: Option<&'a Path>,
    /// What a new id begins with.
    pub(super) name: &'a str,
}

impl StatePlace<'_> {
    /// The id of the job: that of its `--dir`, else that by which its number is known, else a new one.
    pub(super) fn id(&self, job: Option<&OwnJob>, trial: u32) -> io::Result<String> {
        let own = self.dir.map_or(Ok(None), |dir| self.id_of(dir, job))?;
        match job {
            Some(job) => self.id_by_number(job, own.as_deref(), trial),
            None => own.map_or_else(|| self.reserve(), Ok),
        }
    }

    /// The id that a folder has, unless it is a copy of the one that has it.
    fn id_of(&self, dir: &Path, job: Option<&OwnJob>) -> io::Result<Option<String>> {
        let Some(id) = read_id(dir) else { return Ok(None) };
        let place = self.jobs.join(&id);
        match is_same_folder(&place, dir) {
            Ok(true) => Ok(Some(id)),
            Ok(false) => {
                let original = fs::canonicalize(&place)?;
                log_info(&format!(
                    "`{}` is a copy of `{}`: it goes on from there as a job of its own",
                    dir.display(),
                    original.display()
                ));
                copies::forget_original(dir, &id, job)?;
                Ok(None)
            }
            // It was moved, or comes from another home.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                drop(fs::remove_file(&place)); // a link that leads nowhere
                link(dir, &place)?;
                Ok(Some(id))
            }
            Err(error) => Err(error),
        }
    }

    fn id_by_number(&self, job: &OwnJob, own: Option<&str>, trial: u32) -> io::Result<String> {
        let links = Links { folder: self.jobs.join("by-id"), job };
        loop {
            let (all, n_own) = links.ids()?;
            let mine = self.mine(&all, job, trial)?;
            let is_wanted = |id: &&&String| match own {
                Some(own) => **id == own,
                None => self.leads_here(id),
            };
            if let Some(id) = mine.iter().find(is_wanted) {
                return Ok((*id).clone());
            }
            let id = own.map_or_else(|| self.reserve(), |own| Ok(own.to_owned()))?;
            if links.add(n_own, &id)? {
                if let (true, Some(other)) = (mine.is_empty(), all.last()) {
                    let number = &job.number;
                    log_info(&format!("an earlier job {number} was another one, `{other}`"));
                }
                return Ok(id);
            }
            if own.is_none() {
                self.give_up(&id);
            }
        }
    }

    /// Those of the ids that are of this job, the newest first.
    fn mine<'b>(&self, all: &'b [String], job: &OwnJob, trial: u32) -> io::Result<Vec<&'b String>> {
        let mut mine = Vec::new();
        for id in all.iter().rev() {
            let told = job.owns(&ExperimentDir(self.jobs.join(id)), trial)?;
            // The task that has made the folder has yet to tell of the job.
            let is_new =
                || id.rsplit_once('-').is_some_and(|(name, _)| name == name_of_id(self.name));
            if !told.unwrap_or_else(is_new) {
                break;
            }
            mine.push(id);
        }
        Ok(mine)
    }

    /// Whether an id stands for the folder that is wanted.
    fn leads_here(&self, id: &str) -> bool {
        let place = self.jobs.join(id);
        match self.dir {
            Some(dir) => is_same_folder(&place, dir).unwrap_or(false),
            None => !place.is_symlink(),
        }
    }

    /// Makes `jobs/<id>` of a new id, which no other job has.
    fn reserve(&self) -> io::Result<String> {
        loop {
            let id = new_id(self.name);
            let place = self.jobs.join(&id);
            let made = match self.dir {
                Some(dir) => symlink(dir, &place),
                None => DirBuilder::new().mode(0o700).create(&place),
            };
            match made {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // the next moment has another id
                Err(error) => return Err(error),
                Ok(()) => return durable::sync_dir(self.jobs).map(|()| id),
            }
        }
    }

    /// Another task of the array was faster.
    fn give_up(&self, id: &str) {
        let place = self.jobs.join(id);
        drop(if self.dir.is_some() { fs::remove_file(place) } else { fs::remove_dir(place) });
    }
}

/// The links by the number of a job.
#[derive(Debug)]
struct Links<'a> {
    folder: PathBuf,
    job: &'a OwnJob,
}

impl Links<'_> {
    /// The ids that were known by this number, the newest last, and the number of links with the cluster's name: earlier
    /// versions made one without it.
    fn ids(&self) -> io::Result<(Vec<String>, usize)> {
        let named = (0..).map_while(|nth| target(&self.path(nth)).transpose());
        let named: Vec<String> = named.collect::<io::Result<_>>()?;
        let n_named = named.len();
        let unnamed = self.job.cluster.as_ref().map(|_| self.folder.join(&self.job.number));
        let unnamed = unnamed.map_or(Ok(None), |path| target(&path))?;
        Ok((unnamed.into_iter().chain(named).collect(), n_named))
    }

    /// Makes a link, and says whether it leads to this id. Another task of the array may have been faster.
    fn add(&self, nth: usize, id: &str) -> io::Result<bool> {
        let path = self.path(nth);
        link(&Path::new("..").join(id), &path)?;
        Ok(target(&path)?.as_deref() == Some(id))
    }

    fn path(&self, nth: usize) -> PathBuf {
        let number = &self.job.number;
        let name = match &self.job.cluster {
            Some(cluster) => format!("{number}@{}", cluster.replace('/', "-")),
            None => number.clone(),
        };
        self.folder.join(if nth == 0 { name } else { format!("{name}.{nth}") })
    }
}

/// The id that a link leads to.
fn target(link: &Path) -> io::Result<Option<String>> {
    match fs::read_link(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(target) => Ok(target.file_name().map(|id| id.to_string_lossy().into_owned())),
    }
}

/// Makes a link, unless it is there.
fn link(to: &Path, place: &Path) -> io::Result<()> {
    match symlink(to, place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => place.parent().map_or(Ok(()), durable::sync_dir),
    }
}

/// Whether two paths lead to one folder. A disk that is mounted twice has two devices, so the file in it is compared then.
fn is_same_folder(one: &Path, other: &Path) -> io::Result<bool> {
    let (own, theirs) = (fs::metadata(one)?, fs::metadata(other)?);
    if own.ino() != theirs.ino() || own.dev() == theirs.dev() {
        return Ok(own.ino() == theirs.ino());
    }
    let spec = |dir: &Path| {
        let spec = ExperimentDir(dir.to_owned()).task(super::folder::TASK).spec();
        fs::metadata(spec).map(|file| file.ino()).ok()
    };
    Ok(spec(one) == spec(other))
}

/// Crockford's alphabet, in which ids of experiments tell when they were made.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 2025-01-01T00:00:00Z: ids count from here.
const EPOCH: f64 = 1_735_689_600.0;

/// An id as experiments have it: the name, six digits of seconds, two of what tells two of one second apart.
fn new_id(name: &str) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds fit")]
    let place = ((unix_now() - EPOCH) * 1024.0) as u64;
    let digit = |at: u32| char::from(ALPHABET[(place >> (5 * at) & 31) as usize]);
    let digits: String = (0..8).rev().map(digit).collect();
    format!("{}-{digits}", name_of_id(name))
}

/// A name as it stands in an id.
fn name_of_id(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let name: String = name.chars().map(allowed).take(48).collect();
    let name = name.trim_start_matches(['.', '_', '-']);
    if name.is_empty() { "job".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_start_in_one_moment_have_an_id_each() {
        let folder = tempfile::tempdir().unwrap();
        let place = StatePlace { jobs: folder.path(), dir: None, name: "my train" };
        let mut ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..16).map(|_| scope.spawn(|| place.reserve().unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 16, "{ids:?}");
        assert!(ids.iter().all(|id| id.starts_with("my-train-") && id.len() == 17), "{ids:?}");
    }
}
