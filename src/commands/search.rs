//! `search`: experiments by words, the best first.

use clap::Args;

use super::App;
use super::filter_args::FilterArgs;
use super::list::print;
use super::listing::Listing;
use crate::error::{CommandError, ExitCode};
use crate::filter::Words;
use crate::report::out_json_text;
use crate::summary::Index;

/// `search`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  nemo-slurm search digits adam\n  nemo-slurm search lr=0.01 --state failed --since 7d"
)]
pub struct SearchArgs {
    /// Words that must all occur in the name, description, tags, metadata, notes, task names or parameters
    #[arg(required = true, value_name = "WORDS")]
    pub words: Vec<String>,
    /// Which ones.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Searches experiments.
pub(super) fn search(app: &App, args: &SearchArgs) -> Result<ExitCode, CommandError> {
    let filter = &args.filter;
    let words = Words::new(&args.words);
    if words.is_empty() {
        let text = "there is no word to search for";
        let hint = "write at least one: `nemo-slurm search digits`; `nemo-slurm list` shows all";
        return Err(CommandError::new(ExitCode::Usage, text).hinted(hint));
    }
    let index = Index::read(&app.home);
    let ids = app.home.ids()?;
    let mut listing = Listing::new(app, &ids, &index);
    listing.choose(filter, Some(&words));
    if let Some(sort) = &filter.sort {
        listing.sort(sort);
    }
    listing.keep_index();
    if filter.json {
        return out_json_text(&listing.json(filter));
    }
    print(&listing, filter, "`-n 0` shows them all")
}
