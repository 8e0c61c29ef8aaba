//! The users, as a text of TOML and as a table: pure. Where they are kept is `store`'s matter.

use super::acl::{Filter, FilterError, Grants, Readable};
use super::password::{HashError, Hashed};
use crate::limits::{USER_NAME_BYTES_MAX, USERS_MAX};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// How a file of users begins.
const HEAD: &str = "\
# Users of the MQTT listener, as `tributary-agent user` writes them. Changes by hand hold as well,
# but a comment is lost when the file is written again. `password` is a hash; without it a user
# comes with a client certificate. `publish` are topic filters; in them %u is the user's name and
# %c the client's identifier. `read` is true, for what the agent says of devices that the user may
# publish for, or filters like those, for other devices: each holds device/metric.
";

/// One user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// What proves it; without one, only a certificate does.
    pub password: Option<Hashed>,
    /// What it may do.
    pub grants: Arc<Grants>,
}

/// All users, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Users(BTreeMap<Arc<str>, Arc<User>>);

/// Why a text holds no users.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UsersError {
    /// Not TOML, or not ours.
    #[error("line {line}: {reason}")]
    Toml {
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A name that nobody can have.
    #[error("user {name:?}: {NAME_RULE}")]
    Name {
        /// The name.
        name: String,
    },
    /// A filter that is none.
    #[error("user {name:?}: `{key}`: {filter:?} {source}")]
    Filter {
        /// Whose.
        name: String,
        /// `publish` or `read`.
        key: &'static str,
        /// The filter.
        filter: String,
        /// Why.
        source: FilterError,
    },
    /// A hash that is none.
    #[error("user {name:?}: `password` {source}")]
    Password {
        /// Whose.
        name: String,
        /// Why.
        source: HashError,
    },
    /// More users than are held.
    #[error("{0} users; at most {USERS_MAX} are held")]
    Many(usize),
}

const NAME_RULE: &str = "a user's name has 1 to 256 bytes and no control characters";
const _: () = assert!(USER_NAME_BYTES_MAX == 256);

/// Whether somebody can have this name.
pub fn is_user_name(name: &str) -> bool {
    (1..=USER_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    users: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    password: Option<String>,
    publish: Vec<String>,
    #[serde(default)]
    read: ReadEntry,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "`read` is true, false, or a list of topic filters"
)]
enum ReadEntry {
    Flag(bool),
    Filters(Vec<String>),
}

impl Default for ReadEntry {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl Users {
    /// Reads a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it. No hash is shown.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            UsersError::Toml {
                line: 1 + before.unwrap_or_default().matches('\n').count(),
                // Not the whole error: it quotes the line, which may be a hash.
                reason: error.message().replace('\n', ", "),
            }
        })?;
        let mut users = Self::default();
        for (name, entry) in document.users {
            let user = entry.read(&name)?;
            users.insert(&name, user)?;
        }
        Ok(users)
    }

    /// The text that [`parse`](Self::parse) reads.
    pub fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, user) in &self.0 {
            // Writing to a text does not fail.
            let _ = write!(text, "\n[users.{}]\n", quoted(name));
            if let Some(password) = &user.password {
                let _ = writeln!(text, "password = \"{password}\"");
            }
            let _ = writeln!(text, "publish = [{}]", listed(&user.grants.publish));
            match &user.grants.read {
                None => {}
                Some(Readable::Own) => text.push_str("read = true\n"),
                Some(Readable::These(filters)) => {
                    let _ = writeln!(text, "read = [{}]", listed(filters));
                }
            }
        }
        text
    }

    /// Adds a user, or puts it in the place of the one with its name.
    ///
    /// # Errors
    /// A name that nobody can have, or one user too many.
    pub fn insert(&mut self, name: &str, user: User) -> Result<(), UsersError> {
        if !is_user_name(name) {
            return Err(UsersError::Name { name: name.into() });
        }
        if self.0.len() >= USERS_MAX && !self.0.contains_key(name) {
            return Err(UsersError::Many(self.0.len() + 1));
        }
        self.0.insert(name.into(), Arc::new(user));
        Ok(())
    }

    /// Removes a user; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// A user, with its name.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &Arc<User>)> {
        self.0.get_key_value(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<User>)> {
        self.0.iter()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Entry {
    fn read(self, name: &str) -> Result<User, UsersError> {
        let name = || name.to_owned();
        let password = self.password.map(|text| {
            Hashed::parse(&text).map_err(|source| UsersError::Password {
                name: name(),
                source,
            })
        });
        let wrong = |key| {
            move |(filter, source)| UsersError::Filter {
                name: name(),
                key,
                filter,
                source,
            }
        };
        let own = matches!(self.read, ReadEntry::Flag(true));
        let mut grants = Grants::parse(&self.publish, own).map_err(wrong("publish"))?;
        if let ReadEntry::Filters(filters) = &self.read {
            grants = grants.reading(filters).map_err(wrong("read"))?;
        }
        Ok(User {
            password: password.transpose()?,
            grants: Arc::new(grants),
        })
    }
}

/// Filters, as a list of TOML.
fn listed(filters: &[Filter]) -> String {
    let filters = filters.iter().map(|filter| quoted(&filter.to_string()));
    filters.collect::<Vec<_>>().join(", ")
}

/// A TOML basic string (section "String" of TOML 1.0).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::source::access::password::Password;
    use proptest::prelude::*;

    const HASH: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$\
                        CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApz8ArZHAHRk0Uk";

    fn user(publish: &[String], read: bool) -> User {
        User {
            password: Some(Hashed::parse(HASH).unwrap()),
            grants: Arc::new(Grants::parse(publish, read).unwrap()),
        }
    }

    #[test]
    fn hostile_names_come_back_as_they_were() {
        let mut users = Users::default();
        let names = [
            "..",
            "a\"b",
            "a\\b",
            "[users]",
            "a.b",
            "#",
            "naïve ☃",
            " ",
            "'",
            "a = 1",
        ];
        for name in names {
            let publish = [
                format!("x/{}", name.replace(['#', '+'], "")),
                "%u/#".to_owned(),
            ];
            users.insert(name, user(&publish, name == "..")).unwrap();
        }
        let text = users.to_text();
        assert_eq!(Users::parse(&text).unwrap(), users, "{text}");
        for name in ["", "a\nb", "a\u{0}", "\u{7f}", &"x".repeat(257)] {
            let error = users.insert(name, user(&[], false)).unwrap_err();
            assert!(matches!(error, UsersError::Name { .. }), "{error}");
        }
        assert_eq!(users.len(), names.len());
    }

    #[test]
    fn who_has_no_password_and_may_nothing_is_kept_as_such() {
        let mut users = Users::default();
        let nobody = User {
            password: None,
            ..user(&[], false)
        };
        users.insert("nobody", nobody).unwrap();
        let text = users.to_text();
        assert!(!text.contains("password ="), "{text}");
        assert_eq!(Users::parse(&text).unwrap(), users);
    }

    #[test]
    fn what_a_user_may_read_survives_its_file() {
        let entry = |read: &str| format!("[users.a]\npublish = [\"%u/#\"]\n{read}\n");
        let these = |texts: &[&str]| {
            let filters = texts.iter().map(|text| Filter::parse(text).unwrap());
            Some(Readable::These(filters.collect()))
        };
        for (read, expected) in [
            ("", None),
            ("read = false", None),
            ("read = true", Some(Readable::Own)),
            ("read = []", these(&[])),
            ("read = [\"hall/+/t\", \"#\"]", these(&["hall/+/t", "#"])),
        ] {
            let users = Users::parse(&entry(read)).unwrap();
            let (_, user) = users.find("a").unwrap();
            assert_eq!(user.grants.read, expected, "{read}");
            assert_eq!(Users::parse(&users.to_text()).unwrap(), users, "{read}");
        }
        for (read, said) in [
            (
                "read = 1",
                "`read` is true, false, or a list of topic filters",
            ),
            (
                "read = [\"a/#/b\"]",
                "user \"a\": `read`: \"a/#/b\" holds `#` before",
            ),
        ] {
            let error = Users::parse(&entry(read)).unwrap_err().to_string();
            assert!(error.contains(said), "{read}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_hash_is_shown() {
        let entry = |line: &str| format!("[users.a]\npublish = []\n{line}\n");
        for (text, said) in [
            (entry("pasword = 1"), "line 3: unknown field `pasword`"),
            (entry("publish = []"), "line 3: duplicate key"),
            ("[users.a]\n".to_owned(), "missing field `publish`"),
            (
                entry("password = \"hunter2\""),
                "user \"a\": `password` is no PHC string",
            ),
            (
                "[users.a]\npublish = [\"a/#/b\"]".to_owned(),
                "\"a/#/b\" holds `#` before",
            ),
            (
                "[users.\"a\\nb\"]\npublish = []".to_owned(),
                "no control characters",
            ),
            (format!("[users.a]\npassword = \"{HASH}"), "line 2: "),
        ] {
            let error = Users::parse(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert!(
                !error.contains("hunter2") && !error.contains("CTFh"),
                "{error}"
            );
        }
    }

    #[test]
    fn there_are_no_more_than_may_be() {
        let mut users = Users::default();
        let one = Arc::new(user(&[], false));
        let many = (0..USERS_MAX).map(|n| (n.to_string().into(), Arc::clone(&one)));
        users.0.extend(many);
        let more = users.insert("more", user(&[], false));
        assert_eq!(more, Err(UsersError::Many(USERS_MAX + 1)));
        users.insert("7", user(&[], true)).unwrap();
        assert!(
            users.find("7").unwrap().1.grants.read.is_some(),
            "put in place"
        );
        assert!(users.remove("7") && !users.remove("7"));
        users.insert("more", user(&[], false)).unwrap();
    }

    #[test]
    fn a_made_hash_survives_its_file() {
        let password = Password::new(b"correct horse".to_vec());
        let mut users = Users::default();
        let made = User {
            password: Some(Hashed::of(&password).unwrap()),
            ..user(&["#".to_owned()], false)
        };
        users.insert("a", made).unwrap();
        let read = Users::parse(&users.to_text()).unwrap();
        let (_, user) = read.find("a").unwrap();
        assert!(user.password.as_ref().unwrap().is(&password));
    }

    proptest! {
        #[test]
        fn any_name_survives_its_file(name in "\\PC{1,40}", read in any::<bool>()) {
            prop_assume!(is_user_name(&name));
            let mut users = Users::default();
            users.insert(&name, user(&["%u/+".to_owned()], read)).unwrap();
            prop_assert_eq!(Users::parse(&users.to_text()).unwrap(), users);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = Users::parse(&text);
        }
    }
}
