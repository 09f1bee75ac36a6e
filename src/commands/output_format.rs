//! How a command prints rows: for people, for spreadsheets, for programs.

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// A table that fits the terminal.
    Table,
    /// Comma-separated values, the first line with the names of the columns.
    Csv,
    /// JSON, as with `--json`.
    Json,
}

impl OutputFormat {
    /// What `--format` and `--json` mean together.
    pub(super) fn with_json(self, json: bool) -> Self {
        if json { Self::Json } else { self }
    }
}
