//! How a connection ends: what it still holds, its last words, and what is said of clients that
//! were lost: their wills, at once or later, unless their users may not say it any more by then.

use super::super::access::Identity;
use super::super::access::acl::Rights;
use super::super::connection::Will;
use super::super::wills::Fate;
use super::{Batch, Shared, Task, unix_us};
use crate::limits::CLOSE_TIMEOUT;
use metrics::counter;
use std::io;
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
    /// The connection is over: hands over what it still holds, says what is to be said of a client
    /// that was lost, and that nothing more comes from here.
    pub(super) async fn depart(&mut self) {
        // Nobody sends it again where it came with QoS 0.
        if let Some(batch) = self.batch.take()
            && let Some(room) = self.shared.queue.room(batch.len_bytes()).await
        {
            self.shared.queue.push(batch, room);
        }
        self.leave_will().await;
        let (session, expiry_s) = (self.core.session(), self.core.session_expiry_s());
        if self.client.is_some() {
            let parked = self.core.take_subscriptions();
            self.shared.sessions.close(session, expiry_s, parked);
        }
        self.signal.silence();
    }

    /// Sends what is left, for a while: the connection is over.
    pub(super) async fn last_words(&mut self) {
        let sent = tokio::time::timeout(CLOSE_TIMEOUT, async {
            while !self.core.outgoing().is_empty() {
                self.stream.writable().await?;
                self.flush()?;
            }
            self.stream.finish();
            self.stream.try_flush()?;
            while self.stream.holds() {
                self.stream.writable().await?;
                self.stream.try_flush()?;
            }
            io::Result::Ok(())
        });
        // Whether the peer still took them changes nothing: the socket closes now.
        let _ = sent.await;
    }

    /// Says what is to be said of a client that was lost, now or later.
    async fn leave_will(&mut self) {
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
