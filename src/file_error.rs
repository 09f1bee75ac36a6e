//! I/O errors that name their file, and what was tried.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// What was tried on which file.
#[derive(Debug, thiserror::Error)]
#[error("can't {verb} `{}`", path.display())]
pub struct FileError {
    /// What was tried.
    pub verb: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// The message with what the system said, for a line of its own.
    #[must_use]
    pub fn with_cause(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// Says of an I/O error what was tried, and on which file.
pub trait IoResultExt<T> {
    /// `can't VERB PATH`, as an error of its own. One that names its file already keeps that name.
    fn at(self, verb: &'static str, path: &Path) -> Result<T, FileError>;
    /// The same within an I/O error, of the same kind.
    fn named(self, verb: &'static str, path: &Path) -> io::Result<T>;
}

impl<T> IoResultExt<T> for io::Result<T> {
    fn at(self, verb: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| {
            if !source.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<FileError>) {
                return FileError { verb, path: path.to_owned(), source };
            }
            let kind = source.kind();
            let inner = source.into_inner().and_then(|inner| inner.downcast::<FileError>().ok());
            inner.map_or_else(
                || FileError { verb, path: path.to_owned(), source: kind.into() },
                |inner| *inner,
            )
        })
    }

    fn named(self, verb: &'static str, path: &Path) -> io::Result<T> {
        self.at(verb, path).map_err(|error| io::Error::new(error.source.kind(), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_file_is_named_once() {
        let failed: io::Result<()> = Err(io::ErrorKind::PermissionDenied.into());
        let named = failed.named("read", Path::new("a/attempts.jsonl"));
        let error = named.at("look into", Path::new("a")).unwrap_err();
        assert_eq!(error.to_string(), "can't read `a/attempts.jsonl`");
        assert_eq!(error.source.to_string(), "permission denied");
        assert_eq!(error.with_cause(), "can't read `a/attempts.jsonl`: permission denied");
    }
}
