//! `progress.json`: how far the running attempt is, as its program told by messages. For people; nothing rests on it.

use serde::{Deserialize, Serialize};

/// How far an attempt is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The attempt.
    pub attempt: u32,
    /// Completed steps.
    pub step: Option<u64>,
    /// Steps of the whole.
    pub total: Option<u64>,
    /// The part of the whole that is done, from 0 to 1, as the program told it.
    pub progress: Option<f64>,
    /// The program's own words.
    pub status: Option<String>,
}

impl Progress {
    /// The part of the whole that is done, told or from the steps.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn part(&self) -> Option<f64> {
        let of_steps = || Some(self.step? as f64 / self.total.filter(|total| *total > 0)? as f64);
        self.progress.or_else(of_steps).map(|part| part.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_is_told_or_follows_from_the_steps() {
        let progress = Progress { step: Some(5), total: Some(20), ..Progress::default() };
        assert_eq!(progress.part(), Some(0.25));
        assert_eq!(Progress { progress: Some(0.5), ..progress.clone() }.part(), Some(0.5));
        assert_eq!(Progress { total: Some(0), ..progress.clone() }.part(), None);
        assert_eq!(Progress { total: Some(4), ..progress }.part(), Some(1.0));
    }
}
