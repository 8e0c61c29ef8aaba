//! One rule: which topics it is for, and how their messages are read. Made by
//! [`read`](super::read) or, when nothing is configured, by [`Rule::builtin`].

use super::convert::Converts;
use super::filter::{Filter, Template};
use super::pointer::{Places, Pointer};

/// What a payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// JSON where it begins like an object or an array, otherwise a bare value.
    Auto,
    /// JSON.
    Json,
    /// A bare number, truth value or text.
    Value,
    /// A text, whatever is in it.
    Text,
    /// JSON with samples.
    Waveform,
    /// Samples as bytes.
    Binary(Samples),
}

/// How a sample is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Samples {
    I16Le,
    I16Be,
    F32Le,
    F32Be,
}

impl Form {
    /// Every form with its name.
    pub(super) const NAMES: [(&str, Self); 9] = [
        ("auto", Self::Auto),
        ("json", Self::Json),
        ("value", Self::Value),
        ("text", Self::Text),
        ("waveform", Self::Waveform),
        ("i16le", Self::Binary(Samples::I16Le)),
        ("i16be", Self::Binary(Samples::I16Be)),
        ("f32le", Self::Binary(Samples::F32Le)),
        ("f32be", Self::Binary(Samples::F32Be)),
    ];

    pub(super) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, form)| *form == self);
        named.map_or("", |(name, _)| name)
    }

    /// Whether members of JSON are read.
    pub(super) fn has_members(self) -> bool {
        matches!(self, Self::Auto | Self::Json | Self::Waveform)
    }

    /// Whether a message is samples of one metric.
    pub(super) fn is_waveform(self) -> bool {
        matches!(self, Self::Waveform | Self::Binary(_))
    }
}

/// What a number that is a time counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "their names say it")]
pub enum TimeUnit {
    /// By its magnitude; a text is RFC 3339.
    Auto,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// No number: a text as RFC 3339 has it.
    Rfc3339,
}

impl TimeUnit {
    /// Every unit with its name.
    pub(super) const NAMES: [(&str, Self); 6] = [
        ("auto", Self::Auto),
        ("s", Self::Seconds),
        ("ms", Self::Milliseconds),
        ("us", Self::Microseconds),
        ("ns", Self::Nanoseconds),
        ("rfc3339", Self::Rfc3339),
    ];

    pub(super) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, unit)| *unit == self);
        named.map_or("", |(name, _)| name)
    }
}

/// The slots of what has a meaning beside values; those of values come behind.
pub(super) mod slot {
    pub const TIME: usize = 0;
    pub const SEQ: usize = 1;
    pub const UNIT: usize = 2;
    pub const QUALITY: usize = 3;
    pub const RATE: usize = 4;
    pub const SAMPLES: usize = 5;
    /// The first value's.
    pub const VALUES: usize = 6;
}

/// The unit of a rule's readings, where no metric has one of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Nobody says.
    None,
    /// This one.
    Fixed(Box<str>),
    /// What stands there in the message.
    At(Pointer),
}

/// Where a rule finds things in JSON.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointers {
    /// The one value, whose metric is the rule's.
    pub value: Option<Pointer>,
    /// Values by metric.
    pub values: Vec<(Box<str>, Pointer)>,
    /// The time.
    pub time: Option<Pointer>,
    /// The device's number for the message.
    pub seq: Option<Pointer>,
    /// The quality.
    pub quality: Option<Pointer>,
    /// The unit.
    pub unit: Unit,
    /// Samples a second.
    pub rate: Option<Pointer>,
    /// The samples.
    pub samples: Option<Pointer>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) filter: Filter,
    pub(super) form: Form,
    pub(super) device: Option<Template>,
    pub(super) metric: Option<Template>,
    pub(super) pointers: Pointers,
    pub(super) time_unit: TimeUnit,
    pub(super) rate_hz: Option<f64>,
    pub(super) skip_bytes: usize,
    pub(super) converts: Converts,
    /// Every place that is read, with its slot.
    pub(super) places: Places,
    /// Whether every scalar is a reading, not only those that pointers lead to.
    pub(super) all: bool,
    /// Whether values stay as they come.
    pub(super) plain: bool,
    /// Whether user properties say what the payload does not.
    pub(super) properties: bool,
}

impl Rule {
    /// The rule that holds where no other does.
    pub(super) fn builtin() -> Self {
        let filter = Filter::parse("#").expect("it is a filter");
        Self::new(filter, Form::Auto, Pointers::default_of(Form::Auto))
            .expect("no two of the default places are one")
    }

    /// A rule with every other setting at its default.
    ///
    /// # Errors
    /// Two pointers lead to one place: which, and why not.
    pub(super) fn new(
        filter: Filter,
        form: Form,
        pointers: Pointers,
    ) -> Result<Self, (&'static str, String)> {
        let all = form != Form::Waveform && pointers.value.is_none() && pointers.values.is_empty();
        Ok(Self {
            device: None,
            metric: None,
            time_unit: TimeUnit::Auto,
            rate_hz: None,
            skip_bytes: 0,
            converts: Converts::default(),
            places: pointers.places(all)?,
            filter,
            form,
            pointers,
            all,
            plain: true,
            properties: true,
        })
    }

    /// Whether readings of JSON are named by their members, so that the whole topic is the device.
    pub(super) fn names_members(&self) -> bool {
        !self.pointers.values.is_empty()
    }
}

impl Pointers {
    /// Where things are when nothing else is said.
    pub(super) fn default_of(form: Form) -> Self {
        let at = |text| Pointer::parse(text).ok().filter(|_| form.has_members());
        let waveform = |text| at(text).filter(|_| form == Form::Waveform);
        Self {
            value: None,
            values: Vec::new(),
            time: at("/ts"),
            seq: at("/seq"),
            quality: at("/quality"),
            unit: at("/unit").map_or(Unit::None, Unit::At),
            rate: waveform("/rate_hz"),
            samples: waveform("/samples"),
        }
    }

    /// All of them as one tree.
    fn places(&self, all: bool) -> Result<Places, (&'static str, String)> {
        let mut places = Places::new(slot::VALUES + self.values.len().max(1));
        let default = Pointer::parse("/value").ok().filter(|_| all);
        let unit = match &self.unit {
            Unit::At(pointer) => Some(pointer),
            Unit::None | Unit::Fixed(_) => None,
        };
        let named = [
            ("time", &self.time, slot::TIME),
            ("seq", &self.seq, slot::SEQ),
            ("quality", &self.quality, slot::QUALITY),
            ("rate", &self.rate, slot::RATE),
            ("samples", &self.samples, slot::SAMPLES),
            ("value", &self.value, slot::VALUES),
            ("value", &default, slot::VALUES),
        ];
        let named = named.into_iter().filter_map(|(key, pointer, slot)| {
            pointer.as_ref().map(|pointer| (key, pointer, slot))
        });
        let unit = unit.map(|pointer| ("unit", pointer, slot::UNIT));
        let values = self.values.iter().enumerate();
        let values = values.map(|(place, (_, pointer))| ("values", pointer, slot::VALUES + place));
        for (key, pointer, slot) in named.chain(unit).chain(values) {
            places.insert(pointer, slot).map_err(|why| (key, why))?;
        }
        Ok(places)
    }
}
