//! How easily a series alerts, as one word of the configuration.

/// What judges a series.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preset {
    /// Finds most, and alerts most: about 5 of 10,000 readings of a healthy series.
    Sensitive,
    /// Remembers ten times as long: about 2.5.
    Balanced,
    /// As balanced, and an alert must also be far from the recent mean: below 1, but of lasting
    /// shifts of three deviations it finds less than half.
    Quiet,
    /// Below 1 over the first 50,000 readings, more in the first 600, and finds shifts: small
    /// novelties add up, a series that alerts often raises its own threshold, and one that is young
    /// alerts only of what is far from its recent mean.
    #[default]
    Calm,
}

impl Preset {
    /// Every preset with its name.
    pub const NAMES: [(&str, Self); 4] = [
        ("sensitive", Self::Sensitive),
        ("balanced", Self::Balanced),
        ("quiet", Self::Quiet),
        ("calm", Self::Calm),
    ];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, preset)| *preset == self);
        found.map_or("", |(name, _)| name)
    }
}
