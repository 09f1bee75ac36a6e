//! The first step of a commit: takes a save out of the program's reach, if it can be a checkpoint.

use std::io;
use std::path::Path;

use super::commit::CommitRequest;
use super::manifest::{self, CheckpointForm};
use super::store::{FileKind, Store, join};
use super::tree::{self, FileEntry};

/// Takes the entry out of the program's reach, into a folder that becomes the checkpoint.
pub(super) fn take(
    store: &mut impl Store,
    request: &CommitRequest,
    temporary: &Path,
) -> io::Result<Result<CheckpointForm, String>> {
    let inside = join(temporary, &request.entry);
    // An earlier try took the whole save. An entry of that name is the program's next save.
    if store.stat(temporary).is_ok() && !store.list(temporary)?.is_empty() {
        let is_file = is_file_form(store, request, temporary)?;
        return Ok(Ok(if is_file { CheckpointForm::File } else { CheckpointForm::Folder }));
    }
    let kind = match store.stat(&request.from) {
        Ok(stat) => stat.kind,
        // An earlier try got this far.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let form = if is_file_form(store, request, temporary)? {
                CheckpointForm::File
            } else {
                CheckpointForm::Folder
            };
            return Ok(Ok(form));
        }
        Err(error) => return Err(error),
    };
    match kind {
        FileKind::Dir if store.stat(&request.from.join(manifest::NAME)).is_ok() => {
            Ok(Err("it contains a file named MANIFEST, a name that nemo-slurm reserves".to_owned()))
        }
        FileKind::Dir => {
            if let Some(why) = unfit_folder(store, request)? {
                return Ok(Err(why));
            }
            store.rename_new(&request.from, temporary)?;
            Ok(Ok(CheckpointForm::Folder))
        }
        FileKind::File if request.entry == manifest::NAME.as_bytes() => {
            Ok(Err("a checkpoint can't be called MANIFEST".to_owned()))
        }
        FileKind::File if str::from_utf8(&request.entry).is_err() => {
            Ok(Err("its name is not UTF-8, so a resumed program could not be given its path"
                .to_owned()))
        }
        FileKind::File => {
            if store.stat(temporary).is_err() {
                store.make_dir(temporary)?;
            }
            store.rename_new(&request.from, &inside)?;
            Ok(Ok(CheckpointForm::File))
        }
        FileKind::Link => Ok(Err("it is a link, neither a folder nor a file".to_owned())),
        FileKind::Other(kind) => Ok(Err(format!("it is {kind}, neither a folder nor a file"))),
    }
}

/// Whether an earlier try put a single file into the folder. It holds that file and perhaps a manifest.
fn is_file_form(store: &impl Store, request: &CommitRequest, temporary: &Path) -> io::Result<bool> {
    let names = store.list(temporary)?;
    let own = |name: &Vec<u8>| *name == request.entry || name == manifest::NAME.as_bytes();
    Ok(names.contains(&request.entry) && names.iter().all(own))
}

/// Why a saved folder can't be a checkpoint. Such a folder is not touched.
fn unfit_folder(store: &impl Store, request: &CommitRequest) -> io::Result<Option<String>> {
    if let Some(seen) = &request.tree {
        return Ok(unfit(CheckpointForm::Folder, seen));
    }
    match tree::walk(store, &request.from) {
        Ok(entries) => Ok(unfit(CheckpointForm::Folder, &entries)),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            Ok(Some("it is too deep: a path in it is longer than the system takes".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// Why a tree can't be a checkpoint.
pub(super) fn unfit(form: CheckpointForm, entries: &[FileEntry]) -> Option<String> {
    for entry in entries {
        if let FileKind::Other(kind) = entry.stat.kind {
            let name = String::from_utf8_lossy(&entry.path);
            return Some(format!("`{name}` in it is {kind}, neither a file, a folder nor a link"));
        }
    }
    // A manifest comes from an earlier, interrupted try.
    let own = manifest::NAME.as_bytes();
    let is_empty =
        !entries.iter().any(|entry| entry.stat.kind == FileKind::File && entry.path != own);
    (is_empty && form == CheckpointForm::Folder).then(|| "it holds no file".to_owned())
}
