//! Answers whoever asks what is watched, beside judging: a bounded piece of the way at a time, and
//! not more than once a second, however many ask.

use crate::judge::{Judge, StandsWalk, Survey, WatchersOut, Watching};
use crate::limits::{WATCHING_ASKS_MAX, WATCHING_GOOD, WATCHING_SHOWN};
use std::time::Instant;
use tokio::sync::oneshot;

/// Who asked, and what is known for them.
pub(super) struct Answers {
    out: WatchersOut,
    waiting: Vec<oneshot::Sender<Watching>>,
    survey: Option<Survey>,
    last: Option<(Watching, Instant)>,
    /// The way through what stands, for the one who asked first.
    walk: Option<StandsWalk>,
}

impl Answers {
    pub fn new(out: WatchersOut) -> Self {
        Self {
            out,
            waiting: Vec::new(),
            survey: None,
            last: None,
            walk: None,
        }
    }

    /// The log is replayed.
    pub fn begin(&self) {
        self.out.is_live.send_replace(true);
    }

    /// Whether there is more to do at once.
    pub fn is_under_way(&self) -> bool {
        self.survey.is_some() || self.walk.is_some()
    }

    /// Does a piece of it.
    pub fn turn(&mut self, judge: &Judge, now: Instant) {
        let asked = || self.out.stands.try_recv().ok().map(StandsWalk::new);
        let walk = self.walk.take().or_else(asked);
        self.walk = walk.and_then(|walk| walk.step(judge));
        while self.waiting.len() < WATCHING_ASKS_MAX
            && let Ok(tell) = self.out.asked.try_recv()
        {
            self.waiting.push(tell);
        }
        self.waiting.retain(|tell| !tell.is_closed());
        let is_good = |at: Instant| now.saturating_duration_since(at) < WATCHING_GOOD;
        self.last = self.last.take().filter(|(_, at)| is_good(*at));
        if self.last.is_none() && self.survey.is_none() && !self.waiting.is_empty() {
            self.survey = Some(Survey::new(WATCHING_SHOWN));
        }
        // One that is under way comes to its end, also when who asked did not wait: they ask again.
        let told = self.survey.as_mut();
        if let Some(watching) = told.and_then(|survey| judge.survey(survey)) {
            self.survey = None;
            self.last = Some((watching, now));
        }
        if let Some((watching, _)) = &self.last {
            for tell in self.waiting.drain(..) {
                // Who asked may have gone.
                let _ = tell.send(watching.clone());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::configuration::{Configurations, InForce, Texts};
    use crate::decode::Rules;
    use crate::judge::{Unwatched, Watchers};
    use std::path::Path;
    use std::sync::Arc;
    use tributary_journal::{Disk, SimDisk};

    #[tokio::test]
    async fn an_answer_is_good_for_a_second_and_made_for_nobody_who_has_gone() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let texts = Texts::open(disk, Path::new("/config")).unwrap();
        let configurations = Configurations::new(texts, Rules::builtin(), InForce::default());
        let judge = Judge::new(b"storage", configurations);
        let (watchers, out) = Watchers::new();
        let mut answers = Answers::new(out);
        assert_eq!(watchers.ask().await, Err(Unwatched::Replaying));
        answers.begin();
        let now = Instant::now();
        // Nobody asks, and then one does who is gone before it is looked at.
        answers.turn(&judge, now);
        assert!(answers.last.is_none());
        let gone = watchers.clone();
        tokio::select! {
            biased;
            _ = gone.ask() => {}
            () = tokio::task::yield_now() => {}
        }
        answers.turn(&judge, now);
        assert!(answers.last.is_none());
        for (after, made) in [(0, now), (1, now), (1_000, now + WATCHING_GOOD)] {
            let now = now + std::time::Duration::from_millis(after);
            let both = async { tokio::join!(watchers.ask(), watchers.ask()) };
            let turn = async {
                tokio::task::yield_now().await;
                answers.turn(&judge, now);
            };
            let ((one, other), ()) = tokio::join!(both, turn);
            assert_eq!(
                (one, other),
                (Ok(Watching::default()), Ok(Watching::default()))
            );
            assert_eq!(answers.last.as_ref().map(|(_, at)| *at), Some(made));
        }
    }
}
