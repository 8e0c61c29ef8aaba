//! Who is let in, and what it costs to find out. Where a verification must not or must be run, the
//! test holds every permit for one: what comes back at once then ran none.

use super::*;
use crate::limits::{FAILURES_MAX, LOGINS_MAX, LOGINS_OF_ADDRESS_MAX};
use std::net::Ipv4Addr;
use std::time::Duration;
use store::Editing;
use tempfile::TempDir;
use tokio::sync::OwnedSemaphorePermit;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A file of users, and who may come by it.
struct House {
    dir: TempDir,
    access: Access,
}

fn password(text: &str) -> Option<Password> {
    Some(Password::new(text.as_bytes().to_vec()))
}

fn grants(filter: &str) -> Arc<Grants> {
    Arc::new(Grants::parse(&[filter.to_owned()], false).unwrap())
}

fn put(path: &Path, name: &str, secret: Option<&str>, filter: &str) {
    let mut editing = Editing::begin(path).unwrap();
    let hashed = secret.and_then(password).map(|p| Hashed::of(&p).unwrap());
    let user = User {
        password: hashed,
        grants: grants(filter),
    };
    editing.users.insert(name, user).unwrap();
    editing.save().unwrap();
}

impl House {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        put(&path, "pump", Some("correct horse"), "plant/%u/#");
        put(&path, "valve", Some("battery staple"), "#");
        put(&path, "device", None, "devices/#");
        let certificates = Grants::parse(&["certified/%u".to_owned()], false).unwrap();
        let access = Access::open(Some(&path), certificates).unwrap();
        Self { dir, access }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("users.toml")
    }

    async fn comes(&self, user: &str, secret: &str) -> Result<Arc<str>, &'static str> {
        self.comes_from(HERE, user, secret).await
    }

    async fn comes_from(
        &self,
        address: IpAddr,
        user: &str,
        secret: &str,
    ) -> Result<Arc<str>, &'static str> {
        let peer = Peer {
            address,
            certificate: None,
        };
        let found = self.access.identify(&peer, Some(user), password(secret));
        let found = found.await.map_err(|refused| refused.reason)?;
        Ok(found.expect("who has users knows who came").user)
    }

    /// So many passwords were wrong, and none is forgiven before the test is over.
    fn fails_often(&self, times: u32) {
        let later = Instant::now() + Duration::from_secs(600);
        for _ in 0..times {
            lock(&self.access.failures).charge(HERE, later);
        }
    }

    /// Nothing can be verified until this is dropped.
    async fn no_verification(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(verifiers()).unwrap();
        let verifying = Arc::clone(&self.access.verifying);
        verifying.acquire_many_owned(all).await.unwrap()
    }
}

/// What a future gives without waiting for anything, if it does.
async fn at_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

#[tokio::test]
async fn only_the_right_password_of_a_known_user_is_good() {
    let house = House::new();
    assert_eq!(
        &*house.comes("pump", "correct horse").await.unwrap(),
        "pump"
    );
    for (user, secret, reason) in [
        ("pump", "correct horsf", "wrong_password"),
        ("pump", "battery staple", "wrong_password"),
        ("pumq", "correct horse", "unknown_user"),
        ("device", "decoy", "wrong_password"),
        ("nobody", "decoy", "unknown_user"),
        ("pump", "", "no_password"),
        ("pump", &"x".repeat(2_000), "no_password"),
    ] {
        assert_eq!(house.comes(user, secret).await, Err(reason), "{user}");
    }
    let peer = Peer {
        address: HERE,
        certificate: None,
    };
    let none = house.access.identify(&peer, None, None).await.unwrap_err();
    assert_eq!((none.code, none.reason), (0x87, "no_credentials"));
    let half = house.access.identify(&peer, Some("pump"), None).await;
    assert_eq!(half.unwrap_err().code, 0x86);
}

#[tokio::test]
async fn what_was_good_is_good_without_being_computed_again() {
    let house = House::new();
    house.comes("pump", "correct horse").await.unwrap();
    let permit = house.no_verification().await;
    let mut again = Box::pin(house.comes("pump", "correct horse"));
    assert_eq!(at_once(&mut again).await.unwrap().unwrap().as_ref(), "pump");
    for (user, secret) in [
        ("pump", "correct horsf"),
        ("valve", "correct horse"),
        // An unknown user costs what a known one does: it is computed, too.
        ("nobody", "correct horse"),
    ] {
        let mut other = Box::pin(house.comes(user, secret));
        assert_eq!(at_once(&mut other).await, None, "{user} is computed");
    }
    drop(permit);
}

#[tokio::test]
async fn a_reload_forgets_whoever_changed_and_no_other() {
    let house = House::new();
    house.comes("pump", "correct horse").await.unwrap();
    house.comes("valve", "battery staple").await.unwrap();
    put(&house.file(), "pump", Some("another one"), "plant/%u/#");
    house.access.reload().unwrap();
    let permit = house.no_verification().await;
    let mut valve = Box::pin(house.comes("valve", "battery staple"));
    assert!(at_once(&mut valve).await.unwrap().is_ok());
    drop(permit);
    let old = house.comes("pump", "correct horse").await;
    assert_eq!(old, Err("wrong_password"));
    house.comes("pump", "another one").await.unwrap();
}

#[tokio::test]
async fn who_may_stay_is_who_has_not_changed() {
    let house = House::new();
    let peer = Peer {
        address: HERE,
        certificate: None,
    };
    let mut found = Vec::new();
    for (user, secret) in [("pump", "correct horse"), ("valve", "battery staple")] {
        let identity = house.access.identify(&peer, Some(user), password(secret));
        found.push(identity.await.unwrap().unwrap());
    }
    put(&house.file(), "new", None, "#");
    house.access.reload().unwrap();
    assert!(found.iter().all(|identity| house.access.is_still(identity)));
    put(&house.file(), "valve", Some("battery staple"), "a/#");
    let mut editing = Editing::begin(&house.file()).unwrap();
    editing.users.remove("pump");
    editing.save().unwrap();
    house.access.reload().unwrap();
    assert!(!found.iter().any(|identity| house.access.is_still(identity)));
}

#[tokio::test]
async fn a_wrong_file_changes_nothing() {
    let house = House::new();
    std::fs::write(house.file(), "[users.pump]\npublish = [\"a#\"]\n").unwrap();
    let error = house.access.reload().unwrap_err().to_string();
    assert!(
        error.contains("users.toml: user \"pump\": `publish`"),
        "{error}"
    );
    assert_eq!(house.access.users(), 3);
    house.comes("pump", "correct horse").await.unwrap();
    std::fs::remove_file(house.file()).unwrap();
    house.access.reload().unwrap_err();
    house.comes("pump", "correct horse").await.unwrap();
}

#[tokio::test]
async fn more_than_may_wait_are_told_that_it_is_busy() {
    let house = House::new();
    let permit = house.no_verification().await;
    let mut waiting = Vec::new();
    for n in 0..LOGINS_MAX {
        // As many of each address as may be.
        let address = Ipv4Addr::from_bits((n / LOGINS_OF_ADDRESS_MAX) as u32);
        let mut one = Box::pin(house.comes_from(address.into(), "pump", "wrong"));
        assert_eq!(at_once(&mut one).await, None);
        waiting.push(one);
    }
    assert_eq!(house.comes("pump", "correct horse").await, Err("busy"));
    // Whoever goes away makes room, and for its own address only.
    waiting.pop();
    let first = Ipv4Addr::from_bits(0).into();
    let one_more = house.comes_from(first, "pump", "correct horse").await;
    assert_eq!(one_more, Err("busy_address"));
    let mut one = Box::pin(house.comes("pump", "correct horse"));
    assert_eq!(at_once(&mut one).await, None);
    drop((waiting, permit));
    one.await.unwrap();
}

/// A plant behind one address, whose devices all come at once after a power cut.
#[tokio::test]
async fn five_hundred_devices_behind_one_address_all_get_in() {
    let house = House::new();
    let mut editing = Editing::begin(&house.file()).unwrap();
    for n in 0..500 {
        let user = User {
            password: Some(cheap(&format!("secret {n}"))),
            grants: grants("#"),
        };
        editing.users.insert(&format!("device {n}"), user).unwrap();
    }
    editing.save().unwrap();
    house.access.reload().unwrap();
    let permit = house.no_verification().await;
    let mut waiting = Vec::new();
    for n in 0..500 {
        let (name, secret) = (format!("device {n}"), format!("secret {n}"));
        let house = &house;
        let mut one = Box::pin(async move { house.comes(&name, &secret).await });
        assert_eq!(at_once(&mut one).await, None, "device {n} waits");
        waiting.push(one);
    }
    drop(permit);
    for (n, one) in waiting.into_iter().enumerate() {
        assert_eq!(*one.await.unwrap(), *format!("device {n}"));
    }
}

/// A hash that costs next to nothing, as another program may have made it.
fn cheap(secret: &str) -> Hashed {
    use argon2::password_hash::PasswordHasher;
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let made = argon2.hash_password(secret.as_bytes()).unwrap();
    Hashed::parse(&made.to_string()).unwrap()
}

#[tokio::test]
async fn an_address_that_fails_too_often_comes_only_with_what_is_known_to_be_good() {
    let house = House::new();
    house.comes("valve", "battery staple").await.unwrap();
    house.fails_often(FAILURES_MAX);
    let one_more = house.comes("pump", "correct horse").await;
    assert_eq!(one_more, Err("too_many_failures"));
    assert!(house.comes("valve", "battery staple").await.is_ok());
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    house
        .comes_from(elsewhere, "pump", "correct horse")
        .await
        .unwrap();
}

/// More guesses at once than may fail: those that still wait when it is too many are not computed.
#[tokio::test]
async fn guesses_that_wait_are_not_computed_once_it_is_too_many() {
    let house = House::new();
    let permit = house.no_verification().await;
    let mut guesses = Vec::new();
    for n in 0..FAILURES_MAX + 20 {
        let secret = format!("guess {n}");
        let house = &house;
        let mut one = Box::pin(async move { house.comes("pump", &secret).await });
        assert_eq!(at_once(&mut one).await, None);
        guesses.push(one);
    }
    house.fails_often(FAILURES_MAX);
    drop(permit);
    for one in guesses {
        assert_eq!(one.await, Err("too_many_failures"));
    }
}

/// Who fails is charged, also when it does not wait for the answer; who does not fail is not.
#[tokio::test]
async fn only_what_failed_is_charged() {
    let house = House::new();
    house.fails_often(FAILURES_MAX - 1);
    house.comes("pump", "correct horse").await.unwrap();
    let mut one = Box::pin(house.comes("pump", "wrong"));
    assert_eq!(at_once(&mut one).await, None);
    // It is being computed, and nobody waits for that.
    drop(one);
    drop(house.no_verification().await);
    let one_more = house.comes("valve", "battery staple").await;
    assert_eq!(one_more, Err("too_many_failures"));
}

#[tokio::test]
async fn who_many_come_as_at_once_is_computed_once() {
    let house = House::new();
    let permit = house.no_verification().await;
    let mut first = Box::pin(house.comes("pump", "correct horse"));
    let mut second = Box::pin(house.comes("pump", "correct horse"));
    assert_eq!(at_once(&mut first).await, None);
    assert_eq!(at_once(&mut second).await, None);
    drop(permit);
    first.await.unwrap();
    // Nothing would be computed for it now.
    house.fails_often(FAILURES_MAX);
    second.await.unwrap();
}

#[tokio::test]
async fn a_certificate_names_its_user_and_needs_no_password() {
    let house = House::new();
    let trust = blake3::hash(b"");
    let peer = |name: Result<&str, NameError>| Peer {
        address: HERE,
        certificate: Some(Box::new(Certificate {
            name: name.map(Into::into),
            trust,
        })),
    };
    let permit = house.no_verification().await;
    for (name, filter) in [
        ("device", grants("devices/#")),
        ("pump", grants("plant/%u/#")),
        ("stranger", grants("certified/%u")),
    ] {
        // Whatever else it says of itself counts for nothing.
        let peer = peer(Ok(name));
        let said = house.access.identify(&peer, Some("valve"), password("x"));
        let found = said.await.unwrap().unwrap();
        assert_eq!((&*found.user, &found.grants), (name, &filter));
        assert!(house.access.is_still(&found));
    }
    let nameless = peer(Err(NameError::Nobody));
    let nobody = house.access.identify(&nameless, None, None);
    assert_eq!(nobody.await.unwrap_err().reason, "certificate_name");
    drop(permit);
}

/// Whoever is gone may do what its user may now, as long as the proof is the one of then.
#[tokio::test]
async fn what_who_is_gone_may_do_is_what_stands_there_now() {
    let house = House::new();
    let peer = |certificate: Option<&str>| Peer {
        address: HERE,
        certificate: certificate.map(|name| {
            Box::new(Certificate {
                name: Ok(name.into()),
                trust: blake3::hash(b""),
            })
        }),
    };
    let comes = async |certificate: Option<&str>| {
        let peer = peer(certificate);
        let secret = password("correct horse");
        let found = house.access.identify(&peer, Some("pump"), secret).await;
        found.unwrap().unwrap()
    };
    let by_password = comes(None).await;
    let (device, stranger) = (comes(Some("device")).await, comes(Some("stranger")).await);
    let now = |identity: &Identity| house.access.grants_now(identity);
    assert_eq!(now(&by_password), Some(grants("plant/%u/#")));
    let change = |name: &str, change: &dyn Fn(&mut User)| {
        let mut editing = Editing::begin(&house.file()).unwrap();
        let mut user = User::clone(editing.users.find(name).unwrap().1);
        change(&mut user);
        editing.users.insert(name, user).unwrap();
        editing.save().unwrap();
        house.access.reload().unwrap();
    };
    for name in ["pump", "device"] {
        change(name, &|user| user.grants = grants("other"));
    }
    assert_eq!(now(&by_password), Some(grants("other")));
    assert_eq!(now(&device), Some(grants("other")));
    assert_eq!(now(&stranger), Some(grants("certified/%u")));
    change("pump", &|user| user.password = Some(cheap("correct horse")));
    assert_eq!(now(&by_password), None, "another password");
    let mut editing = Editing::begin(&house.file()).unwrap();
    assert!(editing.users.remove("pump") && editing.users.remove("device"));
    editing.save().unwrap();
    house.access.reload().unwrap();
    assert_eq!(now(&by_password), None);
    assert_eq!(now(&device), Some(grants("certified/%u")));
}

#[tokio::test]
async fn without_a_file_nobody_is_asked() {
    let access = Access::open(None, Grants::parse(&[], false).unwrap()).unwrap();
    let peer = Peer {
        address: HERE,
        certificate: None,
    };
    let found = access.identify(&peer, Some("x"), password("y")).await;
    assert!(found.unwrap().is_none());
    access.reload().unwrap();
}

#[tokio::test]
async fn nothing_shows_what_is_secret() {
    let house = House::new();
    house.comes("pump", "correct horse").await.unwrap();
    let shown = format!("{:?}", house.access);
    for secret in ["correct", "argon2", "$", "key: [1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
