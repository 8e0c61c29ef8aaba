//! Who may come, and what each may do: users by password, devices by certificate, everybody where
//! neither is configured. It decides about one arrival at a time; sockets are the listener's.

pub mod acl;
mod failures;
mod logins;
mod name;
pub mod password;
pub mod store;
pub mod users;

use crate::limits::{FAILURE_FORGIVEN, VERIFIERS_MAX};
use acl::Grants;
use failures::{Charged, Failures};
use logins::Logins;
pub use name::{NameError, user_of};
use password::{Hashed, Password};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;
use store::StoreError;
use tokio::sync::Semaphore;
use users::{User, Users};

/// Who is at the other end, as far as the connection itself says.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub address: IpAddr,
    /// The certificate that the client showed, if it did.
    pub certificate: Option<Box<Certificate>>,
}

/// A client's certificate, which was good.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// Whom it names.
    pub name: Result<Arc<str>, NameError>,
    /// The authorities and revocations that it was held against.
    pub trust: blake3::Hash,
}

/// Who a client was found to be.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub user: Arc<str>,
    pub grants: Arc<Grants>,
    /// What a certificate was held against that says so; `None`: a password says so.
    pub trust: Option<blake3::Hash>,
    /// What stood in the file of users.
    entry: Option<Arc<User>>,
}

/// Why a client is not let in: the MQTT 5 code of CONNACK, and a short stable word for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    pub code: u8,
    pub reason: &'static str,
}

const BAD_CREDENTIALS: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;
const BUSY: u8 = 0x89;
const TOO_OFTEN: u8 = 0x9f;

const fn refused(code: u8, reason: &'static str) -> Refused {
    Refused { code, reason }
}

/// The users as they are now, and what was verified of them.
#[derive(Default)]
struct Known {
    users: Users,
    verified: Mutex<HashMap<Arc<str>, Fingerprint>>,
}

/// A keyed hash of a user's name and password, which was good.
type Fingerprint = blake3::Hash;

/// Who may come.
#[derive(Debug)]
pub struct Access {
    /// Without it nobody needs a password.
    passwords: Option<Passwords>,
    /// What a certificate allows whose name has no user of its own.
    certificates: Arc<Grants>,
    known: RwLock<Arc<Known>>,
    failures: Arc<Mutex<Failures>>,
    verifying: Arc<Semaphore>,
    logins: Logins,
}

/// What passwords are held against.
struct Passwords {
    /// The file of users.
    file: PathBuf,
    /// Of this process alone: what is remembered is of no use to anybody else.
    key: [u8; 32],
    /// What a password is compared with when nobody has the name: it takes as long.
    decoy: Arc<Hashed>,
}

/// Why nobody can be told from anybody.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file of users.
    #[error(transparent)]
    Users(#[from] StoreError),
    /// The system has no randomness.
    #[error("users: {0}")]
    Randomness(#[from] password::HashError),
}

impl Access {
    /// Reads the users. `certificates` is what those with a certificate may do who have no entry.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(file: Option<&Path>, certificates: Grants) -> Result<Self, AccessError> {
        let users = file.map(store::load).transpose()?.unwrap_or_default();
        let known = Known {
            users,
            verified: Mutex::default(),
        };
        Ok(Self {
            passwords: file.map(Passwords::new).transpose()?,
            certificates: Arc::new(certificates),
            known: RwLock::new(Arc::new(known)),
            failures: Arc::default(),
            verifying: Arc::new(Semaphore::new(verifiers())),
            logins: Logins::default(),
        })
    }

    /// The file of users, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.passwords.as_ref().map(|passwords| &*passwords.file)
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        self.known().users.len()
    }

    fn known(&self) -> Arc<Known> {
        let known = self.known.read();
        Arc::clone(&known.unwrap_or_else(PoisonError::into_inner))
    }

    fn may_fail(&self, address: IpAddr) -> Result<(), Refused> {
        match lock(&self.failures).may(address, Instant::now()) {
            true => Ok(()),
            false => Err(refused(TOO_OFTEN, "too_many_failures")),
        }
    }

    /// Reads the users again; on an error they stay as they were. What was verified of a user whose
    /// entry did not change is still known.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reload(&self) -> Result<(), StoreError> {
        let Some(file) = self.file() else {
            return Ok(());
        };
        let users = store::load(file)?;
        let before = self.known();
        let mut verified = HashMap::new();
        for (name, fingerprint) in before.verified().iter() {
            let entry = users.find(name);
            if entry.map(|(_, user)| user) == before.users.find(name).map(|(_, user)| user) {
                verified.insert(Arc::clone(name), *fingerprint);
            }
        }
        let known = Known {
            users,
            verified: Mutex::new(verified),
        };
        let now = self.known.write();
        *now.unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// Whether the client would be found to be the same now, and may do the same.
    pub(super) fn is_still(&self, identity: &Identity) -> bool {
        let known = self.known();
        let entry = known.users.find(&identity.user).map(|(_, user)| user);
        entry == identity.entry.as_ref()
    }

    /// What a client that was found to be somebody may do now that it is gone; `None` if what it
    /// proved that with proves nothing any more.
    pub(super) fn grants_now(&self, identity: &Identity) -> Option<Arc<Grants>> {
        let known = self.known();
        let now = known.users.find(&identity.user).map(|(_, user)| user);
        if identity.trust.is_some() {
            let own = now.map(|user| &user.grants);
            return Some(Arc::clone(own.unwrap_or(&self.certificates)));
        }
        let before = identity.entry.as_ref()?;
        now.filter(|user| user.password == before.password)
            .map(|user| Arc::clone(&user.grants))
    }

    /// Finds out who came; `None` is somebody, where nobody has to say who they are. Cancel safe: a
    /// verification that was begun goes on to its end, and a failure is charged.
    pub(super) async fn identify(
        &self,
        peer: &Peer,
        user: Option<&str>,
        password: Option<Password>,
    ) -> Result<Option<Identity>, Refused> {
        if let Some(certificate) = &peer.certificate {
            return self.certified(certificate).map(Some);
        }
        let Some(passwords) = &self.passwords else {
            return Ok(None);
        };
        let Some(user) = user else {
            return Err(refused(NOT_AUTHORIZED, "no_credentials"));
        };
        let Some(password) = password.filter(Password::is_usable) else {
            return Err(refused(BAD_CREDENTIALS, "no_password"));
        };
        let verified = self.verified(passwords, peer.address, user, password);
        verified.await.map(Some)
    }

    fn certified(&self, certificate: &Certificate) -> Result<Identity, Refused> {
        let Ok(name) = &certificate.name else {
            return Err(refused(NOT_AUTHORIZED, "certificate_name"));
        };
        let entry = self
            .known()
            .users
            .find(name)
            .map(|(_, user)| Arc::clone(user));
        let own = entry.as_ref().map(|user| Arc::clone(&user.grants));
        count("certificate");
        Ok(Identity {
            user: Arc::clone(name),
            grants: own.unwrap_or_else(|| Arc::clone(&self.certificates)),
            trust: Some(certificate.trust),
            entry,
        })
    }

    async fn verified(
        &self,
        passwords: &Passwords,
        address: IpAddr,
        user: &str,
        password: Password,
    ) -> Result<Identity, Refused> {
        let known = self.known();
        let found = known.users.find(user);
        let fingerprint = passwords.fingerprint(user, &password);
        let remembered = || {
            let same = known.verified().get(user) == Some(&fingerprint);
            let (name, entry) = found.filter(|_| same)?;
            count("remembered");
            Some(by_password(name, entry))
        };
        if let Some(identity) = remembered() {
            return Ok(identity);
        }
        self.may_fail(address)?;
        let _login = self
            .logins
            .begin(address)
            .map_err(|reason| refused(BUSY, reason))?;
        let permit = Arc::clone(&self.verifying).acquire_owned().await;
        // What was found out while this one waited: neither is computed once more.
        if let Some(identity) = remembered() {
            return Ok(identity);
        }
        self.may_fail(address)?;
        let hashed = found.and_then(|(_, user)| user.password.clone());
        let is_known = hashed.is_some();
        let hashed = hashed.map_or_else(|| Arc::clone(&passwords.decoy), Arc::new);
        let failures = Arc::clone(&self.failures);
        let verifying = blocking(move || {
            let good = hashed.is(&password) && is_known;
            // Here: whoever goes away meanwhile has failed all the same.
            let charged = (!good).then(|| lock(&failures).charge(address, Instant::now()));
            drop(permit);
            charged.map_or(Ok(()), Err)
        });
        let verified = verifying.await;
        if let Err(charged) = verified {
            tell_failed(address, found.map(|(name, _)| &**name), charged);
        }
        match found {
            Some((name, entry)) if verified.is_ok() => {
                known.verified().insert(Arc::clone(name), fingerprint);
                count("password");
                Ok(by_password(name, entry))
            }
            Some(_) => Err(refused(BAD_CREDENTIALS, "wrong_password")),
            None => Err(refused(BAD_CREDENTIALS, "unknown_user")),
        }
    }
}

/// Warns of a failure, and once of one too many; whoever goes on after that fills no log. The name
/// of a user who is not known is not shown: people put passwords there.
fn tell_failed(address: IpAddr, user: Option<&str>, charged: Charged) {
    match (charged, user) {
        (Charged::StillBlocked, _) => tracing::debug!(%address, user, "MQTT: one more failure"),
        (_, Some(user)) => tracing::warn!(%address, ?user, "MQTT: a wrong password"),
        (_, None) => tracing::warn!(%address, "MQTT: a user who is not known"),
    }
    if charged == Charged::Blocked {
        tracing::warn!(
            %address,
            "MQTT: too many failures: passwords from there are refused but for one every \
             {FAILURE_FORGIVEN:?}; more failures of it are told at debug level only"
        );
    }
}

/// Verifies on a thread that may block.
async fn blocking(
    verify: impl FnOnce() -> Result<(), Charged> + Send + 'static,
) -> Result<(), Charged> {
    let verified = tokio::task::spawn_blocking(verify).await;
    verified.unwrap_or(Err(Charged::Counted))
}

/// Nothing panics while it holds the lock.
fn lock(failures: &Mutex<Failures>) -> MutexGuard<'_, Failures> {
    failures.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Passwords").field(&self.file).finish()
    }
}

impl Passwords {
    fn new(file: &Path) -> Result<Self, password::HashError> {
        // Salt and hash are random, and nobody is told either.
        let decoy = Hashed::of(&Password::new(b"decoy".to_vec()))?;
        let purpose = "tributary agent: what was verified of users";
        Ok(Self {
            file: file.to_owned(),
            key: blake3::derive_key(purpose, decoy.to_string().as_bytes()),
            decoy: Arc::new(decoy),
        })
    }

    fn fingerprint(&self, user: &str, password: &Password) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(user.len() as u64).to_le_bytes());
        hasher.update(user.as_bytes());
        hasher.update(password.bytes());
        hasher.finalize()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Known").field(&self.users.len()).finish()
    }
}

impl Known {
    fn verified(&self) -> MutexGuard<'_, HashMap<Arc<str>, Fingerprint>> {
        // Nothing panics while it holds the lock. One entry a user, at most.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_password(name: &Arc<str>, entry: &Arc<User>) -> Identity {
    Identity {
        user: Arc::clone(name),
        grants: Arc::clone(&entry.grants),
        trust: None,
        entry: Some(Arc::clone(entry)),
    }
}

fn count(how: &'static str) {
    metrics::counter!("tributary_agent_mqtt_identified_total", "by" => how).increment(1);
}

fn verifiers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, VERIFIERS_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
