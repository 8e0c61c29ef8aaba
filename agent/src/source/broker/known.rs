//! What the agent keeps of its sessions at brokers: who it is there, and what it subscribed to.
//! Losing it loses no reading: a new identity begins a new session, and says so.

use super::subscriptions::Known;
use crate::decode::message_hash;
use crate::limits::{BROKER_FILTER_BYTES_MAX, BROKER_FILTERS_MAX, BROKER_KNOWN_SLOT_BYTES};
use bytes::{Buf, BufMut};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk};

const VERSION: u8 = 1;

/// The agent's own number at brokers: random, made once, durable before it is used.
///
/// # Errors
/// When it can't be read or made durable.
pub(super) fn identity(disk: &Arc<dyn Disk>, dir: &Path) -> Result<u64, CursorError> {
    let (mut cursor, value) = Cursor::open(Arc::clone(disk), &dir.join("identity"))?;
    if let Some(bytes) = value.and_then(|bytes| bytes.try_into().ok()) {
        return Ok(u64::from_le_bytes(bytes));
    }
    // Keyed afresh by the operating system for every process.
    let random = RandomState::new().hash_one(std::process::id());
    cursor.write(&random.to_le_bytes())?;
    Ok(random)
}

/// The client identifier of the source `name` when none is configured: 23 characters that every
/// broker takes (section 3.1.3.1), and no other agent has.
pub(super) fn client_id(identity: u64, name: &str) -> String {
    let both = message_hash(name, &identity.to_le_bytes());
    format!("tributary{:014x}", both >> 8)
}

/// Where what is known of one session lies.
#[derive(Debug)]
pub(super) struct Store(Cursor);

impl Store {
    /// Opens what is known of the session of `client_id` at `address`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        address: &str,
        client_id: &str,
    ) -> Result<(Self, Known), CursorError> {
        let name = format!("{:016x}", message_hash(address, client_id.as_bytes()));
        let (cursor, value) =
            Cursor::open_sized(Arc::clone(disk), &dir.join(name), BROKER_KNOWN_SLOT_BYTES)?;
        let known = value.and_then(|bytes| read(&bytes)).unwrap_or_default();
        Ok((Self(cursor), known))
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the disk fails; what was known before stays.
    pub(super) fn write(&mut self, known: &Known) -> Result<(), CursorError> {
        self.0.write(&write(known))
    }
}

fn write(known: &Known) -> Vec<u8> {
    let mut out = vec![VERSION, u8::from(known.session)];
    out.put_u16_le(known.filters.len() as u16);
    for filter in &known.filters {
        out.put_u16_le(filter.len() as u16);
        out.put_slice(filter.as_bytes());
    }
    out
}

/// What the bytes say; `None` when they are none of this version.
fn read(mut bytes: &[u8]) -> Option<Known> {
    let input = &mut bytes;
    if input.try_get_u8().ok()? != VERSION {
        return None;
    }
    let session = input.try_get_u8().ok()? != 0;
    let count = usize::from(input.try_get_u16_le().ok()?);
    if count > BROKER_FILTERS_MAX {
        return None;
    }
    let mut filters = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(input.try_get_u16_le().ok()?);
        let (filter, rest) = input.split_at_checked(length)?;
        if length > BROKER_FILTER_BYTES_MAX {
            return None;
        }
        filters.push(std::str::from_utf8(filter).ok()?.to_owned());
        *input = rest;
    }
    Some(Known { session, filters })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tributary_journal::SimDisk;

    #[test]
    fn an_agent_stays_who_it_is_and_knows_what_it_asked_for() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let dir = Path::new("/broker");
        disk.create_dir_all(dir).unwrap();
        let id = identity(&disk, dir).unwrap();
        assert_eq!(identity(&disk, dir).unwrap(), id);
        let (one, other) = (client_id(id, "a:1883"), client_id(id, "b:1883"));
        assert_ne!(one, other, "two brokers, or two sources at one");
        assert_ne!(one, client_id(id ^ 1, "a:1883"), "two agents");
        assert_eq!(one.len(), 23);

        let known = Known {
            session: true,
            filters: vec!["plant/#".into(), "+/t".into()],
        };
        let (mut store, before) = Store::open(&disk, dir, "a:1883", &one).unwrap();
        assert_eq!(before, Known::default());
        store.write(&known).unwrap();
        drop(store);
        assert_eq!(Store::open(&disk, dir, "a:1883", &one).unwrap().1, known);
        let (_, elsewhere) = Store::open(&disk, dir, "b:1883", &one).unwrap();
        assert_eq!(elsewhere, Known::default(), "another broker knows nothing");
    }

    #[test]
    fn as_many_filters_as_may_be_fit() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        disk.create_dir_all(Path::new("/b")).unwrap();
        let (mut store, _) = Store::open(&disk, Path::new("/b"), "a", "c").unwrap();
        let known = Known {
            session: true,
            filters: vec!["x".repeat(BROKER_FILTER_BYTES_MAX); BROKER_FILTERS_MAX],
        };
        store.write(&known).unwrap();
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&bytes);
            let mut behind = vec![VERSION, 1, 2, 0];
            behind.extend(bytes);
            let _ = read(&behind);
        }
    }
}
