//! Values as single words: of a shell, and of Slurm's file name patterns.

/// One word of a POSIX shell that stands for exactly this text.
#[must_use]
pub fn shell_word(text: &str) -> String {
    if !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:,=@+%".contains(c))
    {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A path in which Slurm's file name patterns (`%j`, and `\` that turns them off) mean nothing.
#[must_use]
pub fn unquoted_filename(path: &str) -> String {
    path.replace('%', "%%")
}
