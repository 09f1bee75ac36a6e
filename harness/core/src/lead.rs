//! How long before its end a program is asked to save. Pure.

/// A lead in seconds, in what ends after so many seconds at the latest: what ends soon leaves half of itself to the program.
#[must_use]
pub fn within(lead: u64, ends: impl IntoIterator<Item = u64>) -> u64 {
    ends.into_iter().map(|end| end / 2).fold(lead, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_leaves_half_of_itself() {
        assert_eq!((within(120, None), within(120, Some(3600))), (120, 120));
        assert_eq!(within(120, [180, 90]), 45);
    }
}
