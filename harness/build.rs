//! Leaves the local symbols out of the released program: the own profile of this package loses the workspace's `strip`.
#![expect(clippy::disallowed_methods, reason = "a build script is told by its environment")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--discard-all");
    }
}
