//! What is known of each experiment of a home without looking into it.

use super::{Entry, Index, Summary, read};
use crate::answers::{Wanted, named};
use crate::store::{ExperimentId, Home};

/// What is known of one experiment.
#[derive(Debug)]
pub enum Known<'a> {
    /// It is final, and in the index.
    Indexed(Entry<'a>),
    /// Somebody looked into it.
    Seen(Box<Summary>),
    /// Nobody looked into it yet, or what was told is lost.
    Unseen,
    /// It can't be read; why.
    Damaged(String),
}

impl Known<'_> {
    /// Whether nothing of it can change.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Indexed(_) => true,
            Self::Seen(summary) => summary.is_final,
            Self::Unseen | Self::Damaged(_) => false,
        }
    }
}

/// What is known of these experiments, which are sorted by age. Opens nothing of those that are in the index.
#[must_use]
pub fn known<'a>(home: &Home, ids: &[ExperimentId], index: &'a Index) -> Vec<Known<'a>> {
    let mut indexed = index.entries().peekable();
    let mut one = |id: &ExperimentId| {
        let is_older = |entry: &Entry<'_>| entry.age() < id.age();
        while indexed.next_if(is_older).is_some() {}
        if let Some(entry) = indexed.next_if(|entry| entry.id == id.as_str()) {
            return Known::Indexed(entry);
        }
        let summary = read(&home.experiment(id));
        summary.map_or(Known::Unseen, |summary| Known::Seen(Box::new(summary)))
    };
    ids.iter().map(&mut one).collect()
}

/// What is to be asked about one that is not final.
#[must_use]
pub fn wanted(home: &Home, id: &ExperimentId, known: &Known<'_>) -> Option<Wanted> {
    match known {
        Known::Seen(summary) if !summary.is_final => Some(Wanted::from(summary.as_ref())),
        Known::Unseen => {
            let jobs = named(&home.journal(id).ok()?);
            // Whoever looks at it wants to know all.
            Some(Wanted { jobs, open: usize::MAX, created: id.made_at() })
        }
        Known::Indexed(_) | Known::Seen(_) | Known::Damaged(_) => None,
    }
}
