//! Whether so many series report in turn that they push out each other.

/// Readings over which that is seen.
const WINDOW: u64 = 4_096;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    /// Readings that were judged, and series that were taken back, when the window began.
    from: (u64, u64),
    told: bool,
}

impl Crowded {
    /// Takes in how many readings were judged, and how many series taken back, since the start;
    /// whether it is to be told now, which it is once in a life.
    pub(super) fn is_news(&mut self, judged: u64, taken_back: u64) -> bool {
        let readings = judged.saturating_sub(self.from.0);
        if readings < WINDOW {
            return false;
        }
        let is_crowded = 4 * taken_back.saturating_sub(self.from.1) > readings;
        self.from = (judged, taken_back);
        is_crowded && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_when_a_fourth_of_the_readings_take_a_series_back() {
        let mut crowded = Crowded::default();
        assert!(!crowded.is_news(WINDOW - 1, WINDOW - 1), "too few");
        assert!(!crowded.is_news(WINDOW, WINDOW / 4));
        assert!(!crowded.is_news(2 * WINDOW, WINDOW / 2), "of this window");
        assert!(crowded.is_news(3 * WINDOW, WINDOW / 2 + WINDOW / 4 + 1));
        assert!(!crowded.is_news(4 * WINDOW, 4 * WINDOW), "it was told");
    }
}
