//! What is said of clients that were lost: their wills, at once or later, unless their users may
//! not say it any more by then.

use super::super::access::Identity;
use super::super::access::acl::Rights;
use super::super::connection::Will;
use super::super::wills::Fate;
use super::{Batch, Shared, Task, unix_us};
use metrics::counter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A will, and who left it where clients say who they are.
pub(super) struct Last {
    will: Box<Will>,
    author: Option<Author>,
}

/// Who left a will.
struct Author {
    identity: Identity,
    client_id: Box<str>,
}

impl Last {
    fn held_bytes(&self) -> usize {
        let author = self.author.as_ref();
        let names = author.map_or(0, |author| author.client_id.len());
        size_of::<Self>() + self.will.held_bytes() + names
    }
}

impl Task {
    /// Says what is to be said of a client that was lost, now or later.
    pub(super) async fn leave_will(&mut self) {
        let Some(will) = self.core.take_will() else {
            return;
        };
        let author = self.signal.identity().zip(self.core.rights());
        let last = Last {
            will,
            author: author.map(|(identity, rights)| Author {
                identity: identity.clone(),
                client_id: rights.client_id.clone(),
            }),
        };
        let (session, expiry_s) = (self.core.session(), self.core.session_expiry_s());
        // Section 3.1.3.2.2 [5]: whichever comes first.
        let expiry = Duration::from_secs(expiry_s.unwrap_or(0).into());
        let delay = last.will.delay.min(expiry);
        let held = last.held_bytes();
        let waiting = (delay > Duration::ZERO).then(|| self.shared.wills.wait(session, held));
        let shared = Arc::clone(&self.shared);
        match waiting.flatten() {
            Some(fate) => {
                let later = publish_later(shared, session, last, delay, fate);
                self.shared.tasks.spawn(later);
            }
            None => publish_will(&shared, &last).await,
        }
    }
}

/// Publishes a will as lost now, if it still may be.
async fn publish_will(shared: &Shared, last: &Last) {
    let mut batch = Batch::new();
    last.will.write(unix_us(), &mut batch);
    let Some(room) = shared.queue.room(batch.len_bytes()).await else {
        return;
    };
    // Asked last: it may have waited for long.
    let fate = match shared.may_say(last) {
        true => {
            shared.queue.push(batch, room);
            "published"
        }
        false => {
            shared.tell_withheld(last);
            "withheld"
        }
    };
    counter!("tributary_agent_mqtt_wills_total", "fate" => fate).increment(1);
}

/// Publishes a will when its delay is over or its session is, unless its client comes back.
async fn publish_later(
    shared: Arc<Shared>,
    session: u64,
    last: Last,
    delay: Duration,
    fate: oneshot::Receiver<Fate>,
) {
    let withdrawn = tokio::select! {
        fate = fate => fate == Ok(Fate::Withdrawn),
        () = tokio::time::sleep(delay) => {
            shared.wills.over(session);
            false
        }
    };
    if withdrawn {
        counter!("tributary_agent_mqtt_wills_total", "fate" => "withdrawn").increment(1);
    } else {
        publish_will(&shared, &last).await;
    }
    shared.wills.done(last.held_bytes());
}

impl Shared {
    /// Whether a will may be published now: who left it would still be let in by what it proved,
    /// and may publish there.
    fn may_say(&self, last: &Last) -> bool {
        let Some(Author {
            identity,
            client_id,
        }) = &last.author
        else {
            return true;
        };
        let grants = self.access.grants_now(identity);
        let rights = grants.map(|grants| Rights {
            user: Arc::clone(&identity.user),
            client_id: client_id.clone(),
            grants,
        });
        self.is_trusted(identity) && rights.is_some_and(|rights| rights.allow(last.will.topic()))
    }

    /// Says it for the first of them since users and certificates were read.
    fn tell_withheld(&self, last: &Last) {
        let Some(author) = last.author.as_ref().filter(|_| self.wills.tells()) else {
            return;
        };
        let (user, client) = (&author.identity.user, &author.client_id);
        tracing::warn!(
            ?user,
            ?client,
            topic = last.will.topic(),
            "MQTT: a will is not published: its user is gone, or may not any more; others like it \
             are counted"
        );
    }
}
