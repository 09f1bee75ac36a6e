//! Leaves the unwind tables out of the released harness, which is copied to every compute node.
#![expect(clippy::disallowed_methods, reason = "a build script is configured by its environment")]

fn main() {
    println!("cargo:rerun-if-changed=no-unwind.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|set| set == value);
    // The script is one of the linker that Rust ships for this target.
    if is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
    {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/no-unwind.ld");
    }
}
