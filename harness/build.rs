//! Tells the harness of which commit it is, and leaves the unwind tables out of the released one, which is copied to every
//! compute node.
#![expect(clippy::disallowed_methods, reason = "a build script is configured by its environment")]

#[path = "core/commit.rs"]
mod commit;

fn main() {
    let folder = variable("CARGO_MANIFEST_DIR");
    let root = std::path::Path::new(&folder).join("..");
    let own = ["harness/build.rs", "harness/no-unwind.ld", "harness/src", "harness/Cargo.toml"];
    let shared = ["harness/core", "Cargo.toml", "Cargo.lock", ".cargo"];
    commit::emit(&root, &[own, shared].concat());
    // The script is one of the linker that Rust ships for this target.
    if variable("PROFILE") == "release"
        && variable("CARGO_CFG_TARGET_ENV") == "gnu"
        && variable("CARGO_CFG_TARGET_ARCH") == "x86_64"
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/no-unwind.ld");
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}
