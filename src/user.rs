//! The name of the user who runs this program.
#![expect(clippy::disallowed_methods, reason = "an edge: runs `id`")]

use std::process::{Command, Stdio};

use nix::unistd::getuid;

/// As this machine knows it; nothing where nobody can tell.
#[must_use]
pub fn name_here() -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named(&users, getuid().as_raw()).or_else(named_by_site)
}

/// The name with this number in the text of `/etc/passwd`.
fn named(users: &str, wanted: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(wanted) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// A static program can't ask the site's directory by itself: `id` can.
fn named_by_site() -> Option<String> {
    let mut id = Command::new("id");
    let told = id.arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let name = String::from_utf8(told.stdout).ok()?;
    let name = name.trim();
    (told.status.success() && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_by_its_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\n# odd\n::7:\nada:x:1000:100::/home/ada:\n+\n";
        assert_eq!(named(users, 0).as_deref(), Some("root"));
        assert_eq!(named(users, 1000).as_deref(), Some("ada"));
        for unknown in [1, 7, 100] {
            assert_eq!(named(users, unknown), None, "{unknown}");
        }
    }
}
