//! What is known of sessions: a bounded number, of which the one goes that was not used for
//! longest. Sessions that outlive their connection are held apart from the others, so that no
//! number of the others takes their place (a segmented LRU: the held ones are its protected
//! segment).
//!
//! A function of the order of calls alone, so that a replay builds the same; every call takes the
//! same few steps, however many sessions there are.

use super::Client;
use std::collections::HashMap;

#[derive(Clone, Debug)]
struct Slot {
    session: u64,
    client: Client,
    /// Which of the two lists it stands in.
    held: bool,
    older: Option<usize>,
    newer: Option<usize>,
}

/// Both ends of a list of slots, and its length.
#[derive(Clone, Debug, Default)]
struct Ends {
    oldest: Option<usize>,
    newest: Option<usize>,
    len: usize,
}

/// The sessions: at most `most`, of which `held_most` stand apart.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    places: HashMap<u64, usize>,
    slots: Vec<Slot>,
    loose: Ends,
    held: Ends,
    most: usize,
    held_most: usize,
    /// QoS 2 messages of all of them that were not released.
    unreleased: usize,
}

impl PartialEq for Sessions {
    fn eq(&self, other: &Self) -> bool {
        // Which slot a session has changes nothing.
        self.loose().eq(other.loose()) && self.held().eq(other.held())
    }
}

impl Eq for Sessions {}

impl Sessions {
    /// None; `held_most` below `most`, so that there is always one that may go.
    pub(super) fn new(most: usize, held_most: usize) -> Self {
        assert!(held_most < most, "limits.rs relates them");
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            loose: Ends::default(),
            held: Ends::default(),
            most,
            held_most,
            unreleased: 0,
        }
    }

    /// Changes what is known of a session, from nothing if need be, and uses it.
    pub(super) fn change<T>(&mut self, session: u64, change: impl FnOnce(&mut Client) -> T) -> T {
        let place = match self.places.get(&session) {
            Some(place) => *place,
            None => self.make_room(session),
        };
        let client = &mut self.slot(place).client;
        let before = client.unreleased.len();
        let changed = change(client);
        let after = client.unreleased.len();
        self.unreleased = self.unreleased + after - before;
        self.put_newest(place);
        changed
    }

    /// Changes what is known of a session, if anything is.
    pub(super) fn change_known(&mut self, session: u64, change: impl FnOnce(&mut Client)) {
        if self.places.contains_key(&session) {
            self.change(session, change);
        }
    }

    /// QoS 2 messages of all of them that were not released.
    pub(super) fn unreleased(&self) -> usize {
        self.unreleased
    }

    /// Sessions that end with their connection, and those that gave up their place to others that
    /// do not; oldest first.
    pub(super) fn loose(&self) -> impl Iterator<Item = (u64, &Client)> {
        self.walk(self.loose.oldest, |slot| slot.newer)
    }

    /// Sessions that outlive their connection, oldest first.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, &Client)> {
        self.walk(self.held.oldest, |slot| slot.newer)
    }

    /// All of them: first those that outlive their connection, each kind newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u64, &Client)> {
        let held = self.walk(self.held.newest, |slot| slot.older);
        held.chain(self.walk(self.loose.newest, |slot| slot.older))
    }

    pub(super) fn loose_len(&self) -> usize {
        self.loose.len
    }

    pub(super) fn held_len(&self) -> usize {
        self.held.len
    }

    /// Adds a session as the newest of those that are `held`, or of the others; `None` when it is
    /// there already or there is no room.
    pub(super) fn restore(&mut self, session: u64, client: Client, held: bool) -> Option<()> {
        let full = self.slots.len() >= self.most || (held && self.held.len >= self.held_most);
        if full || self.places.contains_key(&session) {
            return None;
        }
        let place = self.slots.len();
        self.unreleased += client.unreleased.len();
        self.places.insert(session, place);
        self.slots.push(Slot {
            session,
            client,
            held,
            older: None,
            newer: None,
        });
        self.link(place, held);
        Some(())
    }

    fn walk(
        &self,
        from: Option<usize>,
        next: fn(&Slot) -> Option<usize>,
    ) -> impl Iterator<Item = (u64, &Client)> {
        let mut place = from;
        std::iter::from_fn(move || {
            let slot = self.slots.get(place?)?;
            place = next(slot);
            Some((slot.session, &slot.client))
        })
    }

    fn slot(&mut self, place: usize) -> &mut Slot {
        self.slots.get_mut(place).expect("every place names a slot")
    }

    fn ends(&mut self, held: bool) -> &mut Ends {
        match held {
            true => &mut self.held,
            false => &mut self.loose,
        }
    }

    /// The place of a new session, the newest of those that end with their connection.
    fn make_room(&mut self, session: u64) -> usize {
        let fresh = Slot {
            session,
            client: Client::default(),
            held: false,
            older: None,
            newer: None,
        };
        let place = if self.slots.len() < self.most {
            self.slots.push(fresh);
            self.slots.len() - 1
        } else {
            let oldest = self.loose.oldest;
            let place = oldest.expect("fewer are held than there are");
            self.unlink(place);
            let gone = std::mem::replace(self.slot(place), fresh);
            self.places.remove(&gone.session);
            self.unreleased -= gone.client.unreleased.len();
            place
        };
        self.places.insert(session, place);
        self.link(place, false);
        place
    }

    /// Puts it to the end of the list that it belongs to now.
    fn put_newest(&mut self, place: usize) {
        let slot = self.slot(place);
        let (was, held) = (slot.held, slot.client.expiry_s > 0);
        if was == held && slot.newer.is_none() {
            return;
        }
        self.unlink(place);
        self.link(place, held);
        if self.held.len > self.held_most
            && let Some(oldest) = self.held.oldest
        {
            self.unlink(oldest);
            self.link(oldest, false);
        }
    }

    fn unlink(&mut self, place: usize) {
        let slot = self.slot(place);
        let (held, older, newer) = (slot.held, slot.older.take(), slot.newer.take());
        match older {
            Some(older) => self.slot(older).newer = newer,
            None => self.ends(held).oldest = newer,
        }
        match newer {
            Some(newer) => self.slot(newer).older = older,
            None => self.ends(held).newest = older,
        }
        self.ends(held).len -= 1;
    }

    fn link(&mut self, place: usize, held: bool) {
        let ends = self.ends(held);
        let older = ends.newest.replace(place);
        ends.len += 1;
        match older {
            Some(older) => self.slot(older).newer = Some(place),
            None => self.ends(held).oldest = Some(place),
        }
        let slot = self.slot(place);
        (slot.held, slot.older, slot.newer) = (held, older, None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, as two plain lists that are searched from end to end.
    #[derive(Default)]
    struct Model {
        loose: Vec<(u64, u32)>,
        held: Vec<(u64, u32)>,
    }

    const MOST: usize = 6;
    const HELD_MOST: usize = 3;

    impl Model {
        fn change(&mut self, session: u64, expiry_s: u32) {
            let before = self.loose.len() + self.held.len();
            self.loose.retain(|(other, _)| *other != session);
            self.held.retain(|(other, _)| *other != session);
            let known = self.loose.len() + self.held.len() < before;
            if !known && before == MOST {
                self.loose.remove(0);
            }
            match expiry_s > 0 {
                true => self.held.push((session, expiry_s)),
                false => self.loose.push((session, 0)),
            }
            if self.held.len() > HELD_MOST {
                let oldest = self.held.remove(0);
                self.loose.push(oldest);
            }
        }
    }

    fn shown<'a>(all: impl Iterator<Item = (u64, &'a Client)>) -> Vec<(u64, u32)> {
        all.map(|(session, client)| (session, client.expiry_s))
            .collect()
    }

    proptest! {
        #[test]
        fn it_is_two_lists_by_last_use(
            calls in proptest::collection::vec((0u64..12, 0u32..2), 0..200),
        ) {
            let mut sessions = Sessions::new(MOST, HELD_MOST);
            let mut model = Model::default();
            for (session, expiry_s) in calls {
                sessions.change(session, |client| client.expiry_s = expiry_s);
                model.change(session, expiry_s);
                prop_assert_eq!(shown(sessions.loose()), model.loose.clone());
                prop_assert_eq!(shown(sessions.held()), model.held.clone());
                let newest_first: Vec<_> = model.held.iter().rev().chain(model.loose.iter().rev())
                    .copied().collect();
                prop_assert_eq!(shown(sessions.newest_first()), newest_first);
                let lens = (sessions.loose_len(), sessions.held_len());
                prop_assert_eq!(lens, (model.loose.len(), model.held.len()));
                prop_assert_eq!(sessions.places.len(), sessions.slots.len());
            }
        }
    }

    #[test]
    fn no_more_are_restored_than_may_be() {
        let mut sessions = Sessions::new(MOST, HELD_MOST);
        for session in 0..HELD_MOST as u64 {
            sessions.restore(session, Client::default(), true).unwrap();
        }
        assert_eq!(sessions.restore(50, Client::default(), true), None);
        assert_eq!(sessions.restore(0, Client::default(), false), None, "twice");
        for session in HELD_MOST as u64..MOST as u64 {
            sessions.restore(session, Client::default(), false).unwrap();
        }
        assert_eq!(sessions.restore(50, Client::default(), false), None);
    }
}
