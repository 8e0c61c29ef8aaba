//! What MQTT 5 user properties say of a message (section 3.3.2.3.7 \[5\]): its time, its number,
//! the unit and the quality of its values, where the payload says nothing of them. Here they are
//! texts, as they came; what they mean is [`given`](super::given)'s matter.

use crate::limits::PROPERTY_BYTES_MAX;

/// A user property with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Property {
    /// When it was measured.
    Time,
    /// The device's number.
    Seq,
    /// The unit.
    Unit,
    /// The quality.
    Quality,
}

impl Property {
    /// Every one; its place here is its code in the log.
    pub const ALL: [Self; 4] = [Self::Time, Self::Seq, Self::Unit, Self::Quality];

    /// Its name in a packet.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "ts",
            Self::Seq => "seq",
            Self::Unit => "unit",
            Self::Quality => "quality",
        }
    }
}

/// What was said by one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Said<'a> {
    /// Nothing.
    #[default]
    Nothing,
    /// This.
    Text(&'a str),
    /// It stands there twice.
    Twice,
    /// More than [`PROPERTY_BYTES_MAX`].
    TooLong,
}

/// The user properties of a message, of those that have a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserProperties<'a>([Said<'a>; Property::ALL.len()]);

/// An item's code, its kind, and the length of its text.
const ITEM_HEAD_BYTES: usize = 3;
const TEXT: u8 = 0;
const TWICE: u8 = 1;
const TOO_LONG: u8 = 2;
const _: () = assert!(PROPERTY_BYTES_MAX <= u8::MAX as usize);

impl<'a> UserProperties<'a> {
    /// Nothing is said.
    pub const NONE: Self = Self([Said::Nothing; Property::ALL.len()]);
    /// Bytes that [`write`](Self::write) gives, at most.
    pub const BYTES_MAX: usize = Property::ALL.len() * (ITEM_HEAD_BYTES + PROPERTY_BYTES_MAX);

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|said| *said == Said::Nothing)
    }

    /// What this one says.
    pub fn said(&self, property: Property) -> Said<'a> {
        self.0.get(property as usize).copied().unwrap_or_default()
    }

    /// Takes the next user property of a packet; others than those with a meaning are passed over.
    pub fn take(&mut self, name: &str, text: &'a str) {
        let known = Property::ALL.iter().position(|known| known.name() == name);
        if let Some(said) = known.and_then(|place| self.0.get_mut(place)) {
            *said = match said {
                Said::Nothing if text.len() > PROPERTY_BYTES_MAX => Said::TooLong,
                Said::Nothing => Said::Text(text),
                _ => Said::Twice,
            };
        }
    }

    /// Appends them to `out`, each that says something as its code (1 byte), its kind (1), the
    /// length of its text (1) and the text.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (code, said) in self.0.iter().enumerate() {
            let (kind, text) = match said {
                Said::Nothing => continue,
                Said::Text(text) => (TEXT, *text),
                Said::Twice => (TWICE, ""),
                Said::TooLong => (TOO_LONG, ""),
            };
            out.extend_from_slice(&[code as u8, kind, text.len() as u8]);
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// Bytes that [`write`](Self::write) gives.
    pub fn len_bytes(&self) -> usize {
        let bytes = |said: &Said<'_>| match said {
            Said::Nothing => 0,
            Said::Text(text) => ITEM_HEAD_BYTES + text.len(),
            Said::Twice | Said::TooLong => ITEM_HEAD_BYTES,
        };
        self.0.iter().map(bytes).sum()
    }

    /// Reads what [`write`](Self::write) gave; `None` when it is anything else.
    pub fn read(mut bytes: &'a [u8]) -> Option<Self> {
        let mut read = Self::default();
        // In the order of their codes, so that there is one text for one meaning.
        let mut least = 0;
        while let Some(([code, kind, length], rest)) = bytes.split_first_chunk() {
            let (text, rest) = rest.split_at_checked(usize::from(*length))?;
            let text = std::str::from_utf8(text).ok()?;
            let said = match (*kind, text.len()) {
                (TEXT, 0..=PROPERTY_BYTES_MAX) => Said::Text(text),
                (TWICE, 0) => Said::Twice,
                (TOO_LONG, 0) => Said::TooLong,
                _ => return None,
            };
            let code = usize::from(*code);
            if code < least {
                return None;
            }
            *read.0.get_mut(code)? = said;
            least = code + 1;
            bytes = rest;
        }
        bytes.is_empty().then_some(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_these() {
        let mut said = UserProperties::default();
        assert!(said.is_empty());
        said.take("trace", "x");
        assert!(said.is_empty(), "others have no meaning");
        let long = "9".repeat(PROPERTY_BYTES_MAX + 1);
        said.take("unit", "°C");
        said.take("ts", "1769848199");
        said.take("seq", &long);
        said.take("quality", "good");
        said.take("quality", "good");
        let mut bytes = Vec::new();
        said.write(&mut bytes);
        let expected = [
            &b"\0\0\x0a1769848199"[..],
            b"\x01\x02\0",
            b"\x02\0\x03\xc2\xb0C",
            b"\x03\x01\0",
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(bytes.len(), said.len_bytes());
        assert_eq!(UserProperties::read(&bytes), Some(said));
    }

    #[test]
    fn what_nobody_wrote_is_none() {
        for bytes in [
            &b"\0"[..],
            b"\0\0",
            b"\0\0\x01",
            b"\0\x01\x01x",
            b"\0\x03\0",
            b"\x04\0\0",
            b"\x01\0\0\0\0\0",
            b"\0\0\0\0\0\0",
            b"\0\0\x01\xff",
            b"\xff\0\0",
        ] {
            assert_eq!(UserProperties::read(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..24),
        ) {
            if let Some(read) = UserProperties::read(&bytes) {
                let mut again = Vec::new();
                read.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
