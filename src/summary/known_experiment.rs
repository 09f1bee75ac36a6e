//! What is known of each experiment of a home without looking into it.

use super::{Index, IndexEntry, Summary, read};
use crate::query::{JobsToQuery, submitted_jobs};
use crate::store::{ExperimentId, Home};

/// What is known of one experiment.
#[derive(Debug)]
pub enum KnownExperiment<'a> {
    /// It is final, and in the index.
    Indexed(IndexEntry<'a>),
    /// It has a `summary.json`.
    Summarized(Box<Summary>),
    /// Nothing is known yet, or its `summary.json` is lost.
    Unknown,
    /// It can't be read; why.
    Damaged(String),
}

impl KnownExperiment<'_> {
    /// Whether nothing of it can change.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Indexed(_) => true,
            Self::Summarized(summary) => summary.is_final,
            Self::Unknown | Self::Damaged(_) => false,
        }
    }

    /// Whether it was put away.
    #[must_use]
    pub fn is_archived(&self) -> bool {
        match self {
            Self::Indexed(entry) => entry.is_archived(),
            Self::Summarized(summary) => summary.row.archived,
            Self::Unknown | Self::Damaged(_) => false,
        }
    }

    /// Whether a list leaves it out. What was put away and runs again is shown.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let is_over = match self {
            Self::Summarized(summary) => summary.row.state.is_final(),
            Self::Indexed(_) => true,
            Self::Unknown | Self::Damaged(_) => false,
        };
        is_over && self.is_archived()
    }
}

/// What is known of these experiments, which are sorted by age. Opens nothing of those that are in the index.
#[must_use]
pub fn known<'a>(home: &Home, ids: &[ExperimentId], index: &'a Index) -> Vec<KnownExperiment<'a>> {
    let mut indexed = index.entries().peekable();
    let mut one = |id: &ExperimentId| {
        let is_older = |entry: &IndexEntry<'_>| entry.age() < id.age();
        while indexed.next_if(is_older).is_some() {}
        let entry = indexed.next_if(|entry| entry.id == id.as_str());
        if let Some(entry) = entry.filter(|_| !index.is_noted(id.as_str())) {
            return KnownExperiment::Indexed(entry);
        }
        let dir = home.experiment(id);
        // What was over may have been retried since.
        let summary = read(&dir).filter(|summary| {
            let size = || std::fs::metadata(dir.journal()).map_or(0, |file| file.len());
            !summary.is_final || summary.from.journal == size()
        });
        summary.map_or(KnownExperiment::Unknown, |summary| {
            KnownExperiment::Summarized(Box::new(summary))
        })
    };
    ids.iter().map(&mut one).collect()
}

/// What is to be asked about one that is not final.
#[must_use]
pub fn wanted(home: &Home, id: &ExperimentId, known: &KnownExperiment<'_>) -> Option<JobsToQuery> {
    match known {
        KnownExperiment::Summarized(summary) if !summary.is_final => {
            Some(JobsToQuery::from(summary.as_ref()))
        }
        KnownExperiment::Unknown => {
            let jobs = submitted_jobs(&home.journal(id).ok()?);
            // Whoever looks at it wants to know all.
            Some(JobsToQuery { jobs, open: usize::MAX, created: id.made_at() })
        }
        KnownExperiment::Indexed(_)
        | KnownExperiment::Summarized(_)
        | KnownExperiment::Damaged(_) => None,
    }
}
