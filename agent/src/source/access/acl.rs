//! What a user may publish to, and read: topic filters in which whole levels may stand for the
//! user's and the client's own names. Pure. A name is compared with a level of the topic, and
//! never becomes part of a filter: one that holds `/`, `+` or `#` can widen nothing, and matches
//! no level.

use crate::limits::{FILTER_BYTES_MAX, FILTERS_OF_USER_MAX};
use std::fmt;
use std::sync::Arc;

/// Stands for the user's name.
const USER: &str = "%u";
/// Stands for the client's identifier.
const CLIENT: &str = "%c";

/// A topic filter (section 4.7 of both standards), with `%u` and `%c` as levels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    text: Box<str>,
    levels: Box<[Level]>,
    /// It ends in `#`.
    open: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Level {
    Name(Box<str>),
    Any,
    User,
    Client,
}

/// Why a text is no filter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    /// Nothing, or too much.
    #[error("is {0} bytes long; expected 1 to {FILTER_BYTES_MAX}")]
    Length(usize),
    /// A character that no topic of ours may hold.
    #[error("holds a control character")]
    Control,
    /// `#` elsewhere than at the end.
    #[error("holds `#` before its end: it stands alone in the last level")]
    Rest,
    /// A wildcard or a name's place that is only part of a level.
    #[error("holds `{0}` beside other characters: it stands alone in its level")]
    Part(&'static str),
    /// More filters than one user may have.
    #[error("is one of {0} filters; at most {FILTERS_OF_USER_MAX} for one user")]
    Many(usize),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() || text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::Length(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(FilterError::Control);
        }
        let (body, open) = match text.strip_suffix('#') {
            Some("") => (None, true),
            Some(rest) => (
                Some(rest.strip_suffix('/').ok_or(FilterError::Part("#"))?),
                true,
            ),
            None => (Some(text), false),
        };
        let levels = body.into_iter().flat_map(|body| body.split('/'));
        Ok(Self {
            text: text.into(),
            levels: levels.map(Level::parse).collect::<Result<_, _>>()?,
            open,
        })
    }

    /// Whether it holds `topic`, for this user with this client.
    fn holds(&self, topic: &str, user: &str, client: &str) -> bool {
        // Section 4.7.2: a wildcard at the beginning does not stand for what begins with `$`.
        let mut hidden = topic.starts_with('$');
        let mut levels = self.levels.iter();
        for part in topic.split('/') {
            let same = match levels.next() {
                None => return self.open && !hidden,
                Some(Level::Name(name)) => **name == *part,
                Some(Level::Any) => !hidden,
                Some(Level::User) => part == user,
                Some(Level::Client) => part == client,
            };
            if !same {
                return false;
            }
            hidden = false;
        }
        // Section 4.7.1.2: `plant/#` holds `plant`, too.
        levels.next().is_none()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, FilterError> {
        match text {
            "+" => return Ok(Self::Any),
            USER => return Ok(Self::User),
            CLIENT => return Ok(Self::Client),
            _ => {}
        }
        if text.contains('#') {
            return Err(FilterError::Rest);
        }
        match ["+", USER, CLIENT]
            .into_iter()
            .find(|part| text.contains(part))
        {
            Some(part) => Err(FilterError::Part(part)),
            None => Ok(Self::Name(text.into())),
        }
    }
}

/// What a user may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grants {
    /// Where it may publish; the agent's own topics are nobody's.
    pub publish: Box<[Filter]>,
    /// What it may read of what the agent publishes; nothing without.
    pub read: Option<Readable>,
}

/// What a user may read; the agent's own status goes with each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readable {
    /// What concerns devices that it may publish for.
    Own,
    /// What concerns a series whose device and metric, joined by `/`, one of these holds.
    These(Box<[Filter]>),
}

impl Grants {
    /// Reads the filters of what it may publish to; with `read`, it may read what concerns the same
    /// devices.
    ///
    /// # Errors
    /// The first filter that is wrong, and why.
    pub fn parse(publish: &[String], read: bool) -> Result<Self, (String, FilterError)> {
        Ok(Self {
            publish: filters(publish)?,
            read: read.then_some(Readable::Own),
        })
    }

    /// The same, which may read what these filters hold.
    ///
    /// # Errors
    /// The first filter that is wrong, and why.
    pub fn reading(self, read: &[String]) -> Result<Self, (String, FilterError)> {
        let read = Some(Readable::These(filters(read)?));
        Ok(Self { read, ..self })
    }
}

fn filters(texts: &[String]) -> Result<Box<[Filter]>, (String, FilterError)> {
    if texts.len() > FILTERS_OF_USER_MAX {
        let last = texts.last().cloned().unwrap_or_default();
        return Err((last, FilterError::Many(texts.len())));
    }
    let filter = |text: &String| Filter::parse(text).map_err(|error| (text.clone(), error));
    texts.iter().map(filter).collect()
}

/// What the client of one connection may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Rights {
    pub user: Arc<str>,
    pub client_id: Box<str>,
    pub grants: Arc<Grants>,
}

impl Rights {
    /// Whether the client may publish there.
    pub fn allow(&self, topic: &str) -> bool {
        self.holds(&self.grants.publish, topic)
    }

    fn holds(&self, filters: &[Filter], topic: &str) -> bool {
        let mut filters = filters.iter();
        filters.any(|filter| filter.holds(topic, &self.user, &self.client_id))
    }

    /// Whether the client may read what concerns a series: its device and metric, joined by `/`.
    /// What a device publishes comes on a topic that is called like the series, or like the device.
    pub fn sees(&self, series: &str) -> bool {
        match &self.grants.read {
            None => false,
            Some(Readable::These(filters)) => self.holds(filters, series),
            Some(Readable::Own) => {
                let device = series.rsplit_once('/').map(|(device, _)| device);
                self.allow(series) || device.is_some_and(|device| self.allow(device))
            }
        }
    }

    /// Whether there could be a series that it may read.
    pub fn sees_any(&self) -> bool {
        match &self.grants.read {
            None => false,
            Some(Readable::These(filters)) => !filters.is_empty(),
            Some(Readable::Own) => !self.grants.publish.is_empty(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rights(filters: &[&str], user: &str, client_id: &str) -> Rights {
        let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
        Rights {
            user: user.into(),
            client_id: client_id.into(),
            grants: Arc::new(Grants::parse(&texts, false).unwrap()),
        }
    }

    #[test]
    fn a_filter_holds_what_the_standard_says() {
        for (filter, topic, holds) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b", "a", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/+/c", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "/", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("a/#", "a/$b", true),
        ] {
            assert_eq!(
                rights(&[filter], "u", "c").allow(topic),
                holds,
                "{filter} {topic}"
            );
        }
        assert!(!rights(&[], "u", "c").allow("a"), "no filter holds nothing");
    }

    #[test]
    fn names_stand_for_whole_levels_and_widen_nothing() {
        assert!(rights(&["plant/%u/#"], "pump-7", "c").allow("plant/pump-7/t"));
        assert!(rights(&["%c"], "u", "c-1").allow("c-1"));
        assert!(rights(&["%u/%c/+"], "u", "c").allow("u/c/x"));
        for hostile in ["#", "+", "a/#", "+/+", "a/b", "/", "", "%c", "%u"] {
            let rights = rights(&["plant/%u", "line/%c/#"], hostile, hostile);
            for topic in [
                "plant/a",
                "plant/a/b",
                "plant/",
                "line/a/b",
                "line/a",
                "plant",
            ] {
                let own = hostile.is_empty() && topic == "plant/";
                assert_eq!(rights.allow(topic), own, "{hostile} {topic}");
            }
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_a_reason() {
        for (text, error) in [
            ("", FilterError::Length(0)),
            ("a\u{0}b", FilterError::Control),
            ("a/\n", FilterError::Control),
            ("a/#/b", FilterError::Rest),
            ("a#", FilterError::Part("#")),
            ("#a", FilterError::Rest),
            ("a+/b", FilterError::Part("+")),
            ("pump-%u/t", FilterError::Part("%u")),
            ("a/%c%u", FilterError::Part("%u")),
            ("##", FilterError::Part("#")),
        ] {
            assert_eq!(Filter::parse(text), Err(error), "{text:?}");
        }
        let long = "a".repeat(FILTER_BYTES_MAX + 1);
        assert_eq!(Filter::parse(&long), Err(FilterError::Length(long.len())));
        let many = vec!["a".to_owned(); FILTERS_OF_USER_MAX + 1];
        assert!(Grants::parse(&many, false).is_err());
    }

    /// The standard's rules, as slowly as they read: levels from the left, one at a time.
    fn naive(filter: &[&str], topic: &[&str], user: &str, client: &str, first: bool) -> bool {
        let hidden = first && topic.first().is_some_and(|level| level.starts_with('$'));
        match (filter, topic) {
            (["#"], _) => !hidden,
            ([], []) => true,
            ([], _) | (_, []) => false,
            (["+", ..], _) if hidden => false,
            ([f, fs @ ..], [t, ts @ ..]) => {
                let same = match *f {
                    "+" => true,
                    "%u" => *t == user,
                    "%c" => *t == client,
                    name => name == *t,
                };
                same && naive(fs, ts, user, client, false)
            }
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["", "a", "b", "$a", "+", "%u", "%c"])
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "$a", "+", "#", "a/b", "a/#", "%u", "%c"])
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_reading(
            mut filter in prop::collection::vec(level(), 1..5),
            rest in any::<bool>(),
            topic in prop::collection::vec(prop::sample::select(vec!["", "a", "b", "$a"]), 1..5),
            user in name(),
            client in name(),
        ) {
            filter.extend(rest.then_some("#"));
            let text = filter.join("/");
            prop_assume!(!text.is_empty());
            let topic_text = topic.join("/");
            let rights = rights(&[&text], user, client);
            let expected = naive(&filter, &topic, user, client, true);
            prop_assert_eq!(rights.allow(&topic_text), expected, "{} {}", text, topic_text);
        }
    }
}
