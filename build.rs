//! Tells `nemo-slurm` of which commit it is.
#![expect(clippy::disallowed_methods, reason = "a build script is configured by its environment")]

#[path = "harness/core/commit.rs"]
mod commit;

fn main() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let inputs = ["build.rs", "src", "harness/core", "Cargo.toml", "Cargo.lock", ".cargo"];
    commit::emit(root.as_ref(), &inputs);
}
