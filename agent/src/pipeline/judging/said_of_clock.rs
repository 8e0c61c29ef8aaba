//! What is said of the gateway's clock: that it is not trusted, and when it is again. Each once.

use crate::judge::Judge;

/// What was said last: whether it is trusted.
#[derive(Debug, Default)]
pub(super) struct SaidOfClock(Option<bool>);

impl SaidOfClock {
    /// Whether the clock is trusted, if that is to be said now.
    pub fn news(&mut self, judge: &Judge) -> Option<bool> {
        // In this life the log has told nothing yet, or nothing is judged.
        if judge.received() == 0 || !judge.is_enabled() {
            return None;
        }
        let trusted = judge.is_clock_trusted();
        // One that is trusted from the start is nothing to speak of.
        let before = self.0.replace(trusted).unwrap_or(true);
        (before != trusted).then_some(trusted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::configuration::{Configurations, InForce, Texts};
    use crate::decode::Rules;
    use crate::detect::Settings;
    use crate::judge::{KernelClock, time_record};
    use crate::seal::Origin;
    use crate::wal::RecordKind;
    use std::path::Path;
    use std::sync::Arc;
    use tributary_journal::{Disk, SimDisk};
    use tributary_protocol::ids::BufferId;

    /// 2026-05-01.
    const NOW: i64 = 1_777_593_600_000_000;

    struct Told {
        judge: Judge,
        number: u64,
    }

    impl Told {
        fn new() -> Self {
            let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
            let texts = Texts::open(disk, Path::new("/config")).unwrap();
            let configurations = Configurations::new(texts, Rules::builtin(), InForce::default());
            let judge = Judge::new(b"storage", configurations);
            Self { judge, number: 0 }
        }

        fn record(&mut self, kind: RecordKind, bytes: &[u8]) {
            let origin = Origin {
                buffer: BufferId::new(1, 1),
                number: self.number,
            };
            self.number += 1;
            let said = &mut Vec::new();
            self.judge.record(origin, kind.code(), bytes, NOW, said);
        }

        fn settings(&mut self, settings: &Settings) {
            let bytes = [&[1], settings.text().as_bytes()].concat();
            self.record(RecordKind::Detection, &bytes);
        }

        fn clock(&mut self, synchronised: bool) {
            let kernel = KernelClock {
                synchronised: Some(synchronised),
                boot: self.number + 1,
            };
            let batch = time_record(RecordKind::Tick, NOW, kernel);
            let (_, bytes) = batch.iter().next().unwrap();
            self.record(RecordKind::Tick, bytes);
        }
    }

    #[test]
    fn it_is_said_once_that_the_clock_is_not_trusted_and_once_that_it_is_again() {
        let (mut told, mut said) = (Told::new(), SaidOfClock::default());
        assert_eq!(said.news(&told.judge), None, "no time was told yet");
        told.settings(&Settings::default());
        assert_eq!(said.news(&told.judge), None);
        told.clock(false);
        assert_eq!(said.news(&told.judge), Some(false));
        told.clock(false);
        assert_eq!(said.news(&told.judge), None, "it was said");
        told.clock(true);
        assert_eq!(said.news(&told.judge), Some(true));
        assert_eq!(said.news(&told.judge), None);
        told.clock(false);
        assert_eq!(said.news(&told.judge), Some(false));
    }

    #[test]
    fn nothing_is_said_of_a_clock_that_is_right_or_that_judges_nothing() {
        let (mut told, mut said) = (Told::new(), SaidOfClock::default());
        told.settings(&Settings::default());
        told.clock(true);
        assert_eq!(said.news(&told.judge), None);
        let (mut told, mut said) = (Told::new(), SaidOfClock::default());
        told.settings(&Settings {
            enabled: false,
            ..Settings::default()
        });
        told.clock(false);
        assert_eq!(said.news(&told.judge), None);
    }
}
