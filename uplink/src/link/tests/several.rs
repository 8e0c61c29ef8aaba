//! The same with a list of aggregators: whom it dials, what it keeps before it sends, and how it
//! comes home.

use super::*;
use tributary_protocol::frame::FrameKind;
use tributary_protocol::session::RouteTimes;

const FAILOVER: i64 = 5 * SECOND;
const RETURN: i64 = 20 * SECOND;

fn several() -> Link {
    let times = RouteTimes {
        failover_after_us: FAILOVER,
        return_after_us: RETURN,
    };
    let others = ["second:4433".to_owned()];
    let Link { core, now, sealed } = Link::new();
    let core = core.or_to(&others, times, now);
    Link { core, now, sealed }
}

/// Of the journal of this aggregator.
fn welcome_of(at: usize) -> Message {
    Message::Welcome(Welcome {
        log: LogId([at as u8 + 1; 16]),
        ..welcome()
    })
}

impl Link {
    /// What it does until it waits, in which it dials at last.
    fn until_it_dials(&mut self) -> usize {
        loop {
            match self.poll() {
                Do::Wait(at) => self.now = at,
                Do::Dial => return self.core.at(),
                Do::Save(save) => {
                    let kept = save();
                    self.core.saved(kept, self.now);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn greet(&mut self) {
        assert!(matches!(self.poll(), Do::Say(Message::Hello(_))));
        self.core.message(welcome_of(self.core.at()), self.now);
        assert!(self.core.status().borrow().connected);
    }

    fn reach(&mut self, at: usize) {
        assert_eq!(self.until_it_dials(), at);
        self.core.dialled(self.now);
        self.greet();
    }

    /// Away, since home was not there.
    fn away(&mut self) {
        let begun = self.now;
        loop {
            let at = self.until_it_dials();
            if at == 1 {
                break;
            }
            self.core.lost("nobody there".into());
        }
        assert!(self.now - begun >= FAILOVER);
        self.core.dialled(self.now);
        self.greet();
    }

    /// Waits for this to be done.
    fn until(&mut self, done: impl Fn(&Do) -> bool) {
        let begun = self.now;
        loop {
            match self.poll() {
                next if done(&next) => return,
                Do::Wait(at) => self.now = at,
                Do::Save(save) => {
                    let kept = save();
                    self.core.saved(kept, self.now);
                }
                other => panic!("{other:?}"),
            }
            assert!(self.now - begun < 100 * SECOND);
        }
    }
}

#[test]
fn nothing_is_sent_to_a_journal_before_the_cursor_names_it() {
    let mut link = several();
    link.seal();
    link.reach(0);
    let Do::Save(save) = link.poll() else {
        panic!("{:?}", link.core);
    };
    // However often it is asked.
    assert_eq!(link.all().0, [""; 0]);
    let kept = save();
    link.core.saved(kept, link.now);
    assert_eq!(link.all().0, ["send 0"]);
    // It is named for good.
    link.core.lost("gone".into());
    link.reach(0);
    assert_eq!(link.all().0, ["send 0"]);
}

#[test]
fn what_home_may_have_waits_and_goes_to_another_marked() {
    let mut link = several();
    link.core.sender.hold_for(15 * SECOND);
    link.seal();
    link.reach(0);
    assert_eq!(link.all().0, ["save", "send 0"]);
    let kind = |link: &Link, number| link.core.sender().frame_kind(key(number));
    assert_eq!(kind(&link, 0), FrameKind::Batch);
    link.core.lost("gone".into());
    let lost_at = link.now;
    link.away();
    link.seal();
    assert_eq!(link.all().0, ["save", "send 1"], "what is new at once");
    assert_eq!(kind(&link, 1), FrameKind::Batch);
    link.ack(1, 2);
    link.until(|next| matches!(next, Do::Send(batch, _) if batch.key().number == 0));
    assert!(link.now - lost_at >= 15 * SECOND);
    assert_eq!(kind(&link, 0), FrameKind::BatchInDoubt);
}

#[test]
fn it_comes_home_beside_the_session_that_stands() {
    let mut link = several();
    link.away();
    link.seal();
    let (sent, _) = link.all();
    assert_eq!(sent, ["save", "send 0"]);
    link.ack(0, 1);
    link.until(|next| matches!(next, Do::Probe));
    // It goes on meanwhile.
    link.seal();
    assert_eq!(link.all().0, ["send 1"]);
    link.core.probed(link.now, link.now);
    link.seal();
    assert_eq!(link.all().0, [""; 0], "what is new waits");
    link.ack(1, 2);
    match link.poll() {
        Do::Save(save) => link.core.saved(save(), link.now),
        Do::Leave(_) => {}
        other => panic!("{other:?}"),
    }
    link.until(|next| matches!(next, Do::Adopt));
    assert_eq!(link.core.at(), 0);
    link.greet();
    assert!(link.all().0.contains(&"send 2".to_owned()));
}

#[test]
fn home_that_is_not_there_ends_no_session() {
    let mut link = several();
    link.away();
    link.until(|next| matches!(next, Do::Probe));
    let asked = link.now;
    link.core.probe_failed("nobody there".into(), link.now);
    link.seal();
    assert_eq!(link.all().0, ["send 0"]);
    link.ack(0, 1);
    link.until(|next| matches!(next, Do::Probe));
    assert!(link.now - asked >= RETURN);
    // The session breaks while home is dialled: nobody else is, until it has answered.
    link.core.lost("gone".into());
    assert_eq!(link.all().0, [""; 0]);
    link.core.probe_failed("nobody there".into(), link.now);
    link.reach(1);
}

#[test]
fn home_that_answers_late_is_taken_when_the_session_broke() {
    let mut link = several();
    link.away();
    link.until(|next| matches!(next, Do::Probe));
    link.core.lost("gone".into());
    assert_eq!(link.all().0, [""; 0]);
    link.core.probed(link.now, link.now);
    assert!(matches!(link.poll(), Do::Adopt));
    link.greet();
    assert_eq!(link.core.at(), 0);
}

#[test]
fn who_takes_nothing_is_left_for_the_next() {
    let mut link = several();
    link.seal();
    link.reach(0);
    assert_eq!(link.all().0, ["save", "send 0"]);
    let begun = link.now;
    link.until(|next| matches!(next, Do::Leave(_)));
    assert_eq!(link.now - begun, FAILOVER);
    let problem = link.core.status().borrow().problem.clone();
    assert_eq!(problem.as_deref(), Some("the aggregator takes nothing"));
    link.reach(1);
}

#[test]
fn a_cursor_that_could_not_be_kept_names_nobody() {
    let mut link = several();
    link.core.spool().full = true;
    link.seal();
    link.reach(0);
    // Again and again, at some distance; and nobody is left for it.
    let begun = link.now;
    let mut tries = 0;
    while link.now - begun < 2 * FAILOVER {
        match link.poll() {
            Do::Save(save) => {
                tries += 1;
                link.core.saved(save(), link.now);
            }
            Do::Wait(at) => link.now = at,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=15).contains(&tries), "{tries}");
    link.core.spool().full = false;
    link.until(|next| matches!(next, Do::Send(..)));
    assert_eq!(link.core.spool().saved.lock().unwrap().len(), 1);
}

#[test]
fn who_takes_long_over_a_link_that_moves_is_not_left() {
    let mut link = several();
    link.seal();
    link.reach(0);
    assert_eq!(link.all().0, ["save", "send 0"]);
    let begun = link.now;
    while link.now - begun < 3 * FAILOVER {
        match link.poll() {
            Do::Wait(at) => link.now = at,
            Do::Save(save) => link.core.saved(save(), link.now),
            other => panic!("{other:?}"),
        }
        link.core.moved(link.now);
    }
    let stopped = link.now;
    link.until(|next| matches!(next, Do::Leave(_)));
    assert_eq!(link.now - stopped, FAILOVER);
    link.reach(1);
}

#[test]
fn who_hears_of_it_all_and_has_no_room_is_left() {
    let mut link = several();
    link.seal();
    link.reach(0);
    assert_eq!(link.all().0, ["save", "send 0"]);
    link.busy(0);
    let begun = link.now;
    loop {
        link.core.moved(link.now);
        match link.poll() {
            Do::Wait(at) => link.now = at,
            Do::Save(save) => link.core.saved(save(), link.now),
            Do::Send(..) => {
                link.core.moved(link.now);
                link.busy(0);
            }
            Do::Leave(_) => break,
            other => panic!("{other:?}"),
        }
        assert!(link.now - begun < 10 * FAILOVER);
    }
    link.reach(1);
}
