//! Whether so many series report in turn that they push out each other.

use crate::judge::Counts;

/// Readings over which that is seen.
const WINDOW: u64 = 4_096;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    /// Readings that were judged, series that were taken back, and readings for which none gave
    /// way, when the window began.
    from: (u64, u64, u64),
    told: bool,
}

impl Crowded {
    /// Takes in what there was since the start; whether it is to be told now, which it is once in
    /// a life.
    pub(super) fn is_news(&mut self, counts: &Counts) -> bool {
        let now = (counts.judged, counts.taken_back, counts.no_turn);
        let readings = now.0.saturating_sub(self.from.0);
        let turned_away = now.2 > self.from.2;
        if readings < WINDOW && !turned_away {
            return false;
        }
        let is_crowded = 4 * now.1.saturating_sub(self.from.1) > readings || turned_away;
        self.from = now;
        is_crowded && !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(judged: u64, taken_back: u64, no_turn: u64) -> Counts {
        Counts {
            judged,
            taken_back,
            no_turn,
            ..Counts::default()
        }
    }

    #[test]
    fn it_is_told_once_when_a_fourth_of_the_readings_take_a_series_back() {
        let mut crowded = Crowded::default();
        let mut is_news = |judged, taken_back| crowded.is_news(&counts(judged, taken_back, 0));
        assert!(!is_news(WINDOW - 1, WINDOW - 1), "too few");
        assert!(!is_news(WINDOW, WINDOW / 4));
        assert!(!is_news(2 * WINDOW, WINDOW / 2), "of this window");
        assert!(is_news(3 * WINDOW, WINDOW / 2 + WINDOW / 4 + 1));
        assert!(!is_news(4 * WINDOW, 4 * WINDOW), "it was told");
    }

    #[test]
    fn a_reading_for_which_none_gave_way_is_enough() {
        let mut crowded = Crowded::default();
        assert!(!crowded.is_news(&counts(WINDOW, 0, 0)));
        assert!(crowded.is_news(&counts(WINDOW + 1, 0, 1)));
        assert!(!crowded.is_news(&counts(WINDOW + 2, 0, 2)), "it was told");
    }
}
