//! `[detect]`: what judges readings. It reads and writes settings, and judges nothing.

use super::{GroupSpecs, Preset, Rules, TimeSettings, VibrationSpecs, WindowSpecs};
use crate::alert::Revision;
use crate::limits::{DETECTION_TEXT_BYTES_MAX, KEPT_SERIES, WATCHED_SERIES};
use std::sync::Arc;
use tributary_settings::{Diagnostic, Document, Section};

/// How a series is judged that reports faster than once a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FastMode {
    /// By the mean of each second, and by how far apart its readings are.
    #[default]
    Windows,
    /// Reading by reading, as all others.
    Readings,
}

impl FastMode {
    const NAMES: [(&str, Self); 2] = [("windows", Self::Windows), ("readings", Self::Readings)];

    fn name(self) -> &'static str {
        match self {
            Self::Windows => "windows",
            Self::Readings => "readings",
        }
    }
}

/// When the gateway's clock is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClockTrust {
    /// When the kernel calls it synchronised, or did in this boot; as the other where it can't say.
    #[default]
    Kernel,
    /// Always, as long as it says what a clock may say.
    Plausible,
}

impl ClockTrust {
    const NAMES: [(&str, Self); 2] = [("kernel", Self::Kernel), ("plausible", Self::Plausible)];

    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Plausible => "plausible",
        }
    }
}

/// The settings of detection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether anything is judged.
    pub enabled: bool,
    /// What judges a series.
    pub preset: Preset,
    /// Whether a series is also judged by its time of the week.
    pub weekly: bool,
    /// How a series is judged that reports faster than once a second.
    pub fast: FastMode,
    /// When the gateway's clock is believed.
    pub clock: ClockTrust,
    /// Series that are watched at once; beyond, the one that was silent longest gives way.
    pub series_max: usize,
    /// Series that gave way and are known again when they speak.
    pub series_kept_max: usize,
    /// How patient event time is.
    pub time: TimeSettings,
    /// The windows that readings are summed up in.
    pub windows: Arc<WindowSpecs>,
    /// The rules that a person wrote.
    pub rules: Arc<Rules>,
    /// The series that are vibrations.
    pub vibration: Arc<VibrationSpecs>,
    /// The machines that have an abnormal state.
    pub groups: Arc<GroupSpecs>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            preset: Preset::default(),
            weekly: true,
            fast: FastMode::default(),
            clock: ClockTrust::default(),
            series_max: WATCHED_SERIES.0,
            series_kept_max: KEPT_SERIES.0,
            time: TimeSettings::default(),
            windows: Arc::default(),
            rules: Rules::none(),
            vibration: VibrationSpecs::none(),
            groups: Arc::default(),
        }
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Settings {}

impl Settings {
    /// Reads `[detect]`; what is wrong is reported there.
    pub fn read(section: &mut Section) -> Self {
        let default = Self::default();
        let preset = section.read("preset", |name: String| {
            let found = Preset::NAMES.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, preset)| *preset)
                .ok_or_else(|| format!("is \"{name}\"; expected {}", names()))
        });
        let fast = section.read("fast", |name: String| {
            let found = FastMode::NAMES.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, mode)| *mode)
                .ok_or_else(|| format!("is \"{name}\"; expected windows or readings"))
        });
        let clock = section.read("clock", |name: String| {
            let found = ClockTrust::NAMES.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, trust)| *trust)
                .ok_or_else(|| format!("is \"{name}\"; expected kernel or plausible"))
        });
        let (least, most) = (1, WATCHED_SERIES.1 as u64);
        let series_max = section.within("series_max", (least, most), default.series_max as u64);
        let (range, kept) = ((0, KEPT_SERIES.1 as u64), default.series_kept_max);
        let series_kept_max = section.within("series_kept_max", range, kept as u64);
        let settings = Self {
            enabled: section.or("enabled", default.enabled),
            preset: preset.unwrap_or(default.preset),
            weekly: section.or("weekly", default.weekly),
            fast: fast.unwrap_or_default(),
            clock: clock.unwrap_or_default(),
            series_max: usize::try_from(series_max).unwrap_or(default.series_max),
            series_kept_max: usize::try_from(series_kept_max).unwrap_or(kept),
            time: TimeSettings::read(section),
            windows: WindowSpecs::read(section),
            rules: Rules::read(section),
            vibration: VibrationSpecs::read(section),
            groups: GroupSpecs::read(section),
        };
        let bytes = settings.text().len();
        if bytes > DETECTION_TEXT_BYTES_MAX {
            section.wrong_section(format!(
                "takes {bytes} bytes with every default written out; at most \
                 {DETECTION_TEXT_BYTES_MAX}: fewer rules and windows, or shorter ones"
            ));
        }
        settings
    }

    /// Reads a text that [`text`](Self::text) gave.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut document = Document::parse(text, "", []);
        let settings = Self::read(&mut document.root().section("detect"));
        match document.finish() {
            wrong if wrong.is_empty() => Ok(settings),
            wrong => Err(wrong),
        }
    }

    /// The settings with every default written out, so that they mean the same to a later version
    /// with other defaults.
    pub fn text(&self) -> String {
        let Self {
            enabled,
            preset,
            weekly,
            fast,
            clock,
            series_max,
            series_kept_max,
            ..
        } = self;
        let (preset, fast, clock) = (preset.name(), fast.name(), clock.name());
        let mut text = format!(
            "[detect]\nenabled = {enabled}\npreset = \"{preset}\"\nweekly = {weekly}\n\
             fast = \"{fast}\"\nclock = \"{clock}\"\n\
             series_max = {series_max}\nseries_kept_max = {series_kept_max}\n"
        );
        text.push_str(&self.time.text());
        text.push_str(&self.windows.text());
        text.push_str(self.rules.text());
        text.push_str(self.vibration.text());
        text.push_str(self.groups.text());
        text
    }

    /// What names the windows in aggregates.
    pub fn windows_revision(&self) -> Revision {
        let mut revision = Revision::default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.windows.text().as_bytes());
        hasher.finalize_xof().fill(&mut revision.0);
        revision
    }

    /// What names the settings of a series' own detector in alerts: rules and windows are not
    /// among them.
    pub fn revision(&self) -> Revision {
        let (preset, weekly, fast) = (self.preset.name(), self.weekly, self.fast.name());
        let mut revision = Revision::default();
        let mut hasher = blake3::Hasher::new();
        let text = format!("preset = \"{preset}\"\nweekly = {weekly}\nfast = \"{fast}\"\n");
        hasher.update(text.as_bytes());
        hasher.finalize_xof().fill(&mut revision.0);
        revision
    }
}

fn names() -> String {
    let names: Vec<&str> = Preset::NAMES.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_back_the_settings_that_it_was_made_from() {
        for (_, preset) in Preset::NAMES {
            let settings = Settings {
                enabled: false,
                preset,
                weekly: false,
                fast: FastMode::Readings,
                clock: ClockTrust::Plausible,
                series_max: 7,
                series_kept_max: 9,
                ..Settings::default()
            };
            assert_eq!(Settings::parse(&settings.text()).unwrap(), settings);
            assert_ne!(settings.revision(), Settings::default().revision());
        }
        let all = "[detect]\nallowed_lateness_ms = 700\n\
                   [[detect.window]]\nname = \"minute\"\nkind = \"tumbling\"\nsize_ms = 60000\n\
                   [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\n\
                   above = 80\n\
                   [[detect.vibration]]\nmetric = \"acc\"\n";
        let settings = Settings::parse(all).unwrap();
        assert_eq!((settings.windows.len(), settings.rules.len()), (1, 1));
        assert_eq!(Settings::parse(&settings.text()).unwrap(), settings);
        assert_ne!(settings, Settings::default());
        assert_eq!(settings.revision(), Settings::default().revision());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = Settings::parse(
            "[detect]\npreset = \"loud\"\nseries_max = 0\nfast = \"no\"\nclock = \"gps\"\n",
        )
        .unwrap_err();
        let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "line 2: `detect.preset` is \"loud\"; expected sensitive, balanced, quiet, calm",
                "line 3: `detect.series_max` is 0; expected 1 to 1000000",
                "line 4: `detect.fast` is \"no\"; expected windows or readings",
                "line 5: `detect.clock` is \"gps\"; expected kernel or plausible",
            ]
        );
    }
}
