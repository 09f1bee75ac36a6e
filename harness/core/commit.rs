//! What a program says of its own build: the build scripts of both programs include this file.
//!
//! The commit is that of the clone; without git, what an archive of git's or the packager says; else nobody knows it.

use std::path::Path;
use std::process::Command;

/// Names the commit by hand: `<hash>`, or `<hash>-dirty`.
const BY_HAND: &str = "NEMO_SLURM_COMMIT";
/// Git fills the hash in when it makes an archive (`export-subst` in `.gitattributes`).
const ARCHIVED: &str = ".commit";

/// Hands the facts to the compiler. `inputs` are what the program is built from, relative to `root`.
pub(crate) fn emit(root: &Path, inputs: &[&str]) {
    println!("cargo:rerun-if-env-changed={BY_HAND}");
    for input in inputs.iter().copied().chain([ARCHIVED]) {
        watch(&root.join(input));
    }
    let (commit, is_dirty) = by_hand().or_else(|| from_git(root, inputs)).unwrap_or_else(|| {
        let archived = std::fs::read_to_string(root.join(ARCHIVED)).unwrap_or_default();
        (Some(archived.trim()).filter(|it| is_hash(it)).unwrap_or_default().to_owned(), false)
    });
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!("cargo:rustc-env=BUILD_DIRTY={is_dirty}");
    println!("cargo:rustc-env=BUILD_TARGET={}", variable("TARGET"));
    println!("cargo:rustc-env=BUILD_PROFILE={}", variable("PROFILE"));
    println!("cargo:rustc-env=BUILD_FEATURES={}", features().join(","));
}

/// The features of the package that are on, and whether the program is static.
fn features() -> Vec<String> {
    let names = std::env::vars().filter_map(|(name, _)| {
        let feature = name.strip_prefix("CARGO_FEATURE_")?;
        Some(feature.to_lowercase().replace('_', "-"))
    });
    let mut features: Vec<String> = names.collect();
    if variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static") {
        features.push("static".to_owned());
    }
    features.sort();
    features
}

fn by_hand() -> Option<(String, bool)> {
    let text = std::env::var(BY_HAND).ok()?;
    let hash = text.strip_suffix("-dirty").unwrap_or(&text);
    assert!(is_hash(hash), "{BY_HAND} is `{text}`, not a commit of 40 hexadecimal digits");
    Some((hash.to_owned(), hash != text))
}

/// Of this work tree only: sources that lie in somebody else's are not of its commit.
fn from_git(root: &Path, inputs: &[&str]) -> Option<(String, bool)> {
    if !root.join(".git").exists() {
        return None;
    }
    let commit = git(root, &["rev-parse", "--verify", "HEAD"])?;
    // It grows with each commit and checkout; where nobody keeps it, the branch's file and HEAD tell.
    let branch = git(root, &["rev-parse", "--symbolic-full-name", "HEAD"]).unwrap_or_default();
    for name in ["logs/HEAD", "HEAD", &branch] {
        if let Some(path) = git(root, &["rev-parse", "--git-path", name]) {
            watch(&root.join(path));
        }
    }
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changed = git(root, &[&status[..], inputs].concat())?;
    Some((commit, !changed.is_empty()))
}

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    // A build takes no lock that a user's git would wait for.
    let output = command.arg("--no-optional-locks").current_dir(root).args(arguments).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

/// Cargo runs a build script each time if it watches a file that is not there.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
