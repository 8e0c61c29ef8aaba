//! Which names a setting is for: a text in which `*` stands for any characters, also none and also
//! `/`. Everything else stands for itself, and the whole name must fit.

use tributary_protocol::ids::is_name;
use tributary_settings::Section;

/// A pattern of device or metric names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pattern(Box<str>);

impl Pattern {
    /// Every name.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        match is_name(text) {
            true => Ok(Self(text.into())),
            false => Err(
                "is no pattern of names: expected 1 to 256 bytes without control \
                          characters, `*` for any characters"
                    .into(),
            ),
        }
    }

    /// The pattern in a setting, if there is one; what hardly was meant by it is said there.
    pub fn read(section: &mut Section, key: &'static str) -> Option<Self> {
        let pattern = section.read(key, |text: String| Self::parse(&text))?;
        if let Some(why) = hardly_meant(pattern.text()) {
            section.warn(key, why);
        }
        Some(pattern)
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it is one name.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether `name` fits. At most as many steps as the product of both lengths.
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(first) = parts.next() else {
            return false;
        };
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // The first place where a part stands leaves most for those behind it.
        for part in parts {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

/// What hardly was meant by a pattern: levels of a filter, which stand for themselves here.
fn hardly_meant(pattern: &str) -> Option<String> {
    let wild = |level: &str| !level.is_empty() && level.bytes().all(|byte| b"+#".contains(&byte));
    pattern.split('/').any(wild).then(|| {
        format!(
            "is \"{pattern}\", in which `+` and `#` stand for themselves: in a pattern write `*`, \
             which is any characters, also `/`"
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, letter by letter.
    fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| by_definition(rest, &name[skip..])),
            Some((letter, rest)) => name.first() == Some(letter) && by_definition(rest, &name[1..]),
        }
    }

    #[test]
    fn a_star_is_any_characters_and_all_else_is_itself() {
        for (pattern, name, fits) in [
            ("*", "anything/at all", true),
            ("pump-*", "pump-7", true),
            ("pump-*", "pump-", true),
            ("pump-*", "a pump-7", false),
            ("*/temperature", "motor/a/temperature", true),
            ("a*a", "a", false),
            ("a*b*c", "a/b/b/c", true),
            ("p?", "p7", false),
            ("temp", "temperature", false),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().fits(name),
                fits,
                "{pattern} {name}"
            );
        }
        assert!(Pattern::parse("").is_err());
        assert!(Pattern::parse("a\0").is_err());
    }

    proptest! {
        #[test]
        fn it_fits_what_the_definition_says(pattern in "[ab*]{1,8}", name in "[ab]{1,10}") {
            let expected = by_definition(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Pattern::parse(&pattern).unwrap().fits(&name), expected);
        }
    }
}
