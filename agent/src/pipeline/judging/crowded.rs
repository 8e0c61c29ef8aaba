//! Whether so many series report in turn that they push out each other.

use crate::judge::Counts;

/// Readings over which that is seen.
const WINDOW: u64 = 4_096;

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crowding {
    /// Series push out each other, and all of them are known.
    PushOut,
    /// Readings were turned away: nobody knows of how many series.
    TurnAway,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    /// Readings that were judged, series that were taken back, and readings for which none gave
    /// way, when the window began.
    from: (u64, u64, u64),
    /// Which of both were told.
    told: (bool, bool),
}

impl Crowded {
    /// Takes in what there was since the start; what is to be told now: either once in a life, and
    /// nothing more once readings were turned away.
    pub(super) fn news(&mut self, counts: &Counts) -> Option<Crowding> {
        let now = (counts.judged, counts.taken_back, counts.no_turn);
        let readings = now.0.saturating_sub(self.from.0);
        let turned_away = now.2 > self.from.2;
        if readings < WINDOW && !turned_away {
            return None;
        }
        let push_out = 4 * now.1.saturating_sub(self.from.1) > readings;
        self.from = now;
        let (told_push_out, told_turn_away) = self.told;
        if turned_away && !told_turn_away {
            self.told.1 = true;
            return Some(Crowding::TurnAway);
        }
        if push_out && !told_push_out && !told_turn_away {
            self.told.0 = true;
            return Some(Crowding::PushOut);
        }
        None
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
        let mut news = |judged, taken_back| crowded.news(&counts(judged, taken_back, 0));
        assert_eq!(news(WINDOW - 1, WINDOW - 1), None, "too few");
        assert_eq!(news(WINDOW, WINDOW / 4), None);
        assert_eq!(news(2 * WINDOW, WINDOW / 2), None, "of this window");
        let fourth = news(3 * WINDOW, WINDOW / 2 + WINDOW / 4 + 1);
        assert_eq!(fourth, Some(Crowding::PushOut));
        assert_eq!(news(4 * WINDOW, 4 * WINDOW), None, "it was told");
    }

    #[test]
    fn a_reading_for_which_none_gave_way_is_enough_and_told_also_behind_the_other() {
        let mut crowded = Crowded::default();
        let pushed_out = crowded.news(&counts(WINDOW, WINDOW, 0));
        assert_eq!(pushed_out, Some(Crowding::PushOut));
        let turned_away = crowded.news(&counts(WINDOW + 1, WINDOW, 1));
        assert_eq!(turned_away, Some(Crowding::TurnAway));
        assert_eq!(crowded.news(&counts(WINDOW + 2, WINDOW, 2)), None);
        let both = counts(3 * WINDOW, 3 * WINDOW, 2);
        assert_eq!(crowded.news(&both), None, "it was told");
        let mut crowded = Crowded::default();
        let at_once = crowded.news(&counts(1, 0, 1));
        assert_eq!(at_once, Some(Crowding::TurnAway));
        assert_eq!(crowded.news(&both), None, "more than that was told");
    }
}
