//! Topic filters with named levels, and the templates that put names together from them.
//!
//! A filter is MQTT's (3.1.1, section 4.7): `+` is any one level, `#` at the end any number of
//! levels, also none; `{name}` is `+` with a name. A template is a text with `{name}` in it.

use crate::limits::FILTER_LEVELS_MAX;
use tributary_settings::nearest;

/// One level of a filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Level {
    /// This text.
    Literal(Box<str>),
    /// Any text, perhaps with a name.
    Any(Option<Box<str>>),
}

/// Which topics a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    text: Box<str>,
    levels: Vec<Level>,
    /// Whether any more levels may follow.
    rest: bool,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("is empty or holds U+0000; expected a filter like `plant/+/t`".into());
        }
        let mut filter = Self {
            text: text.into(),
            levels: Vec::new(),
            rest: false,
        };
        for level in text.split('/') {
            if filter.rest {
                return Err("goes on behind `#`, which must be the last level".into());
            }
            if filter.levels.len() == FILTER_LEVELS_MAX {
                return Err(format!("has more than {FILTER_LEVELS_MAX} levels"));
            }
            match level {
                "#" => filter.rest = true,
                "+" => filter.levels.push(Level::Any(None)),
                _ => {
                    let level = filter.level(level)?;
                    filter.levels.push(level);
                }
            }
        }
        Ok(filter)
    }

    fn level(&self, text: &str) -> Result<Level, String> {
        if text.contains(['+', '#']) {
            return Err(format!(
                "has the level `{text}`: `+` and `#` stand for whole levels"
            ));
        }
        if !text.contains(['{', '}']) {
            return Ok(Level::Literal(text.into()));
        }
        let name = text
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        let name = name.filter(|name| is_level_name(name)).ok_or_else(|| {
            format!(
                "has the level `{text}`: a named level is `{{name}}` and nothing else, of letters, \
                 digits and `_`"
            )
        })?;
        if self.named(name).is_some() {
            return Err(format!("names two levels `{name}`"));
        }
        Ok(Level::Any(Some(name.into())))
    }

    /// The filter as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    pub(super) fn rest(&self) -> bool {
        self.rest
    }

    /// Which level has this name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        let named = |level: &Level| matches!(level, Level::Any(Some(known)) if **known == *name);
        self.levels.iter().position(named)
    }

    fn names(&self) -> Vec<&str> {
        let names = self.levels.iter().filter_map(|level| match level {
            Level::Any(Some(name)) => Some(&**name),
            _ => None,
        });
        names.collect()
    }

    /// Whether it is for every topic that `other` is for.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // A topic has a level: `#` is `+/#`.
        let one = [Level::Any(None)];
        let levels = match other.levels.as_slice() {
            [] => &one,
            levels => levels,
        };
        let hidden = matches!(levels.first(), Some(Level::Literal(text)) if text.starts_with('$'));
        if hidden && self.begins_wild() {
            return false;
        }
        let level = |(ours, theirs): (&Level, &Level)| match ours {
            Level::Any(_) => true,
            literal => literal == theirs,
        };
        let enough = match (self.rest, other.rest) {
            (true, _) => self.levels.len() <= levels.len(),
            (false, true) => false,
            (false, false) => self.levels.len() == levels.len(),
        };
        enough && self.levels.iter().zip(levels).all(level)
    }

    /// Whether there is a topic that both are for.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let hidden = |filter: &Self| match filter.levels.first() {
            Some(Level::Literal(text)) => text.starts_with('$'),
            _ => false,
        };
        if hidden(self) && other.begins_wild() || hidden(other) && self.begins_wild() {
            return false;
        }
        let both = self.levels.iter().zip(&other.levels);
        let mut levels = both.map(|levels| match levels {
            (Level::Literal(ours), Level::Literal(theirs)) => ours == theirs,
            _ => true,
        });
        let (ours, theirs) = (self.levels.len(), other.levels.len());
        let long_enough = match (self.rest, other.rest) {
            (true, true) => true,
            (true, false) => ours <= theirs,
            (false, true) => theirs <= ours,
            (false, false) => ours == theirs,
        };
        long_enough && levels.all(|fits| fits)
    }

    /// Then it is for no topic that begins with `$`.
    fn begins_wild(&self) -> bool {
        let first = self.levels.first();
        first.map_or(self.rest, |first| matches!(first, Level::Any(_)))
    }

    /// Whether the filter is for `topic`: what the matcher does for all filters
    /// at once.
    pub fn is_for(&self, topic: &str) -> bool {
        if self.begins_wild() && topic.starts_with('$') {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in &self.levels {
            match (wanted, levels.next()) {
                (Level::Any(_), Some(_)) => {}
                (Level::Literal(text), Some(level)) if **text == *level => {}
                _ => return false,
            }
        }
        self.rest || levels.next().is_none()
    }
}

/// What hardly was meant by a filter.
pub(crate) fn hardly_meant(filter: &str) -> Option<String> {
    filter.contains('*').then(|| {
        format!(
            "holds `{filter}`, in which `*` stands for itself: in a filter write `+` for one \
             level, and `#` as the last one for all that follow"
        )
    })
}

fn is_level_name(name: &str) -> bool {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(usable)
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Literal(Box<str>),
    /// The level of the topic with this place.
    Level(usize),
}

/// How a name is put together from the levels of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    text: Box<str>,
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template over the named levels of `filter`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str, filter: &Filter) -> Result<Self, String> {
        let mut template = Self {
            text: text.into(),
            pieces: Vec::new(),
        };
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(open);
            if !before.is_empty() {
                template.pieces.push(Piece::Literal(before.into()));
            }
            let named = behind
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'));
            let (name, behind) = named.ok_or("has a brace without its other half")?;
            let level = filter.named(name).ok_or_else(|| unknown(name, filter))?;
            template.pieces.push(Piece::Level(level));
            rest = behind;
        }
        if !rest.is_empty() {
            template.pieces.push(Piece::Literal(rest.into()));
        }
        if template.pieces.is_empty() {
            return Err("is empty; expected a name, or a template like `{site}/{device}`".into());
        }
        Ok(template)
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends what the template gives for `topic`.
    pub(super) fn write(&self, topic: &str, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Level(place) => out.push_str(topic.split('/').nth(*place).unwrap_or("")),
            }
        }
    }
}

fn unknown(name: &str, filter: &Filter) -> String {
    let names = filter.names();
    match nearest(name, &names) {
        Some(near) => format!("names `{{{name}}}`; did you mean `{{{near}}}`?"),
        None if names.is_empty() => {
            format!("names `{{{name}}}`, and the topic names no level: write `{{{name}}}` for `+`")
        }
        None => format!(
            "names `{{{name}}}`; the topic names {}",
            names
                .iter()
                .map(|name| format!("`{{{name}}}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Every text of one to `most` of these levels.
    fn all(levels: &[&str], most: usize) -> Vec<String> {
        let mut all: Vec<String> = levels.iter().map(|&level| level.into()).collect();
        let mut last = all.clone();
        for _ in 1..most {
            let longer = |text: &String| {
                let of = |level: &&str| format!("{text}/{level}");
                levels.iter().map(of).collect::<Vec<_>>()
            };
            last = last.iter().flat_map(longer).collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn a_filter_covers_another_where_it_is_for_all_its_topics() {
        let topics = all(&["a", "$b", "c", ""], 4);
        let filters = all(&["a", "$b", "+", "{n}", "#"], 3);
        let filters = filters.iter().filter_map(|text| Filter::parse(text).ok());
        let filters: Vec<Filter> = filters.collect();
        let mut covered = 0;
        for ours in &filters {
            for theirs in &filters {
                let mut of_theirs = topics.iter().filter(|topic| theirs.is_for(topic));
                let covers = of_theirs.all(|topic| ours.is_for(topic));
                let (our, their) = (ours.text(), theirs.text());
                assert_eq!(ours.covers(theirs), covers, "`{our}` before `{their}`");
                covered += usize::from(covers);
            }
        }
        assert!(covered > filters.len());
    }

    #[test]
    fn two_filters_meet_where_a_topic_is_for_both() {
        let topics = all(&["a", "$b", "c", ""], 4);
        let filters = all(&["a", "$b", "+", "{n}", "#"], 3);
        let filters = filters.iter().filter_map(|text| Filter::parse(text).ok());
        let filters: Vec<Filter> = filters.collect();
        for ours in &filters {
            for theirs in &filters {
                let mut topics = topics.iter();
                let meets = topics.any(|topic| ours.is_for(topic) && theirs.is_for(topic));
                let (our, their) = (ours.text(), theirs.text());
                assert_eq!(ours.meets(theirs), meets, "`{our}` and `{their}`");
            }
        }
    }
}
