//! `[[detect.window]]`: a window from its section of the configuration, everything wrong said at
//! once.

use super::spec::{Hop, WindowKind, WindowSpec, WindowSpecs};
use crate::decode::{Filter, hardly_meant};
use crate::limits::{
    WINDOW_LENGTH_MAX_MS, WINDOW_MS, WINDOW_NAME_BYTES_MAX, WINDOW_PANES_MAX,
    WINDOW_PATTERN_BYTES_MAX, WINDOW_PATTERNS_MAX, WINDOW_READINGS, WINDOW_SPECS_MAX,
};
use std::sync::Arc;
use tributary_settings::Section;

/// What `kind` may be, with the settings that it has.
const KINDS: [(&str, &[&str]); 4] = [
    ("tumbling", &["size_ms"]),
    ("sliding", &["size_ms", "every_ms"]),
    ("session", &["gap_ms", "length_max_ms"]),
    ("count", &["readings", "length_max_ms"]),
];
/// Every setting that only some kinds have.
const OF_KINDS: [&str; 5] = ["size_ms", "every_ms", "gap_ms", "readings", "length_max_ms"];

impl WindowSpecs {
    /// Reads `[[detect.window]]` below `[detect]`; what is wrong is reported there.
    pub fn read(detect: &mut Section) -> Arc<Self> {
        let mut specs: Vec<WindowSpec> = Vec::new();
        for (place, mut section) in detect.sections("window").into_iter().enumerate() {
            if place == WINDOW_SPECS_MAX {
                section.wrong_section(format!("is one too many: at most {WINDOW_SPECS_MAX}"));
            }
            let Some(spec) = spec(&mut section) else {
                continue;
            };
            if specs.iter().any(|known| known.name == spec.name) {
                let name = &spec.name;
                section.wrong("name", format!("is \"{name}\", as of a window before it"));
            }
            if place < WINDOW_SPECS_MAX {
                specs.push(spec);
            }
        }
        Arc::new(Self::new(specs))
    }
}

/// The window in `section`; `None` when something is wrong with it, which is reported.
fn spec(section: &mut Section) -> Option<WindowSpec> {
    let name = name(section);
    let devices = patterns(section, "devices");
    let metrics = patterns(section, "metrics");
    let kind = kind(section);
    let expected = optional_ms(section, "expected_interval_ms");
    Some(WindowSpec {
        name: name?,
        devices: devices?,
        metrics: metrics?,
        kind: kind?,
        expected_interval: expected.map(us),
    })
}

fn name(section: &mut Section) -> Option<Arc<str>> {
    let given = section.has("name");
    let name = section.read("name", |name: String| {
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let fits = (1..=WINDOW_NAME_BYTES_MAX).contains(&name.len());
        match fits && name.bytes().all(usable) {
            true => Ok(Arc::from(name)),
            false => Err(format!(
                "is \"{}\"; expected 1 to {WINDOW_NAME_BYTES_MAX} letters, digits, `_`, `-` \
                 and `.`",
                name.chars().take(64).collect::<String>()
            )),
        }
    });
    if !given {
        section.wrong("name", "is missing: what are its aggregates called by?");
    }
    name
}

/// Filters over the levels of a name; all names when it is left out.
pub(crate) fn patterns(section: &mut Section, key: &'static str) -> Option<Vec<Filter>> {
    if !section.has(key) {
        let _ = section.optional::<Vec<String>>(key);
        return Filter::parse("#").ok().map(|all| vec![all]);
    }
    let filters = section.read(key, |texts: Vec<String>| match texts.len() {
        0 => Err("is empty: it selects nothing; leave it out for all".into()),
        count if count > WINDOW_PATTERNS_MAX => Err(format!(
            "holds {count} patterns; at most {WINDOW_PATTERNS_MAX}"
        )),
        _ => {
            let pattern = |text: &String| match text.len() > WINDOW_PATTERN_BYTES_MAX {
                true => Err(format!(
                    "holds a pattern of {} bytes; at most {WINDOW_PATTERN_BYTES_MAX}",
                    text.len()
                )),
                false => {
                    Filter::parse(text).map_err(|why| format!("holds \"{text}\", which {why}"))
                }
            };
            texts.iter().map(pattern).collect()
        }
    });
    let filters: Vec<Filter> = filters?;
    let said = filters
        .iter()
        .find_map(|filter| hardly_meant(filter.text()));
    if let Some(why) = said {
        section.warn(key, why);
    }
    Some(filters)
}

fn kind(section: &mut Section) -> Option<WindowKind> {
    let given: Vec<&str> = OF_KINDS
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let named = section.has("kind");
    let kind = section.read("kind", |text: String| {
        let found = KINDS.iter().find(|(name, _)| *name == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            let near = tributary_settings::nearest(&text, &names);
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            format!("is \"{text}\"; expected one of {}{near}", names.join(", "))
        })
    });
    if !named {
        section.wrong(
            "kind",
            "is missing: expected `tumbling`, `sliding`, `session` or `count`",
        );
    }
    // All are read, so that none is unknown; those that have no meaning are said.
    let size = optional_ms(section, "size_ms");
    let every = optional_ms(section, "every_ms");
    let gap = optional_ms(section, "gap_ms");
    let readings = section.read("readings", |count: u64| {
        let (least, most) = WINDOW_READINGS;
        match (least..=most).contains(&count) {
            true => Ok(count),
            false => Err(format!("is {count}; expected {least} to {most}")),
        }
    });
    let length_max = section.within("length_max_ms", WINDOW_MS, WINDOW_LENGTH_MAX_MS);
    let (kind, keys) = kind?;
    for key in OF_KINDS {
        if given.contains(&key) && !keys.contains(&key) {
            section.wrong(key, format!("has no meaning with `kind = \"{kind}\"`"));
        }
        let may_miss = key == "length_max_ms";
        if !given.contains(&key) && keys.contains(&key) && !may_miss {
            section.wrong(key, format!("is missing: `kind = \"{kind}\"` needs it"));
        }
    }
    let length_max = us(length_max);
    match kind {
        "tumbling" => Some(WindowKind::Tumbling { size: us(size?) }),
        "sliding" => sliding(section, us(size?), us(every?)),
        "session" => session(section, us(gap?), length_max),
        _ => Some(WindowKind::Count {
            readings: readings?,
            length_max,
        }),
    }
}

fn sliding(section: &Section, size: i64, every: i64) -> Option<WindowKind> {
    if every > size {
        section.wrong(
            "every_ms",
            "is more than `size_ms`: readings between two windows would be in none",
        );
        return None;
    }
    let panes = Hop::new(size, every).panes();
    if panes > WINDOW_PANES_MAX {
        section.wrong(
            "every_ms",
            format!(
                "makes {panes} panes of a window; at most {WINDOW_PANES_MAX}: choose one that \
                 `size_ms` is a small multiple of"
            ),
        );
        return None;
    }
    Some(WindowKind::Sliding { size, every })
}

fn session(section: &Section, gap: i64, length_max: i64) -> Option<WindowKind> {
    if gap > length_max {
        section.wrong("gap_ms", "is more than `length_max_ms`");
        return None;
    }
    Some(WindowKind::Session { gap, length_max })
}

fn optional_ms(section: &mut Section, key: &'static str) -> Option<u64> {
    let (least, most) = WINDOW_MS;
    section.read(key, |ms: u64| match (least..=most).contains(&ms) {
        true => Ok(ms),
        false => Err(format!("is {ms}; expected {least} to {most}")),
    })
}

fn us(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use tributary_settings::Document;

    fn read(text: &str) -> (Arc<WindowSpecs>, String) {
        let mut document = Document::parse(text, "", []);
        let specs = WindowSpecs::read(&mut document.root().section("detect"));
        let wrong: Vec<String> = document.finish().iter().map(ToString::to_string).collect();
        (specs, wrong.join("\n"))
    }

    #[test]
    fn each_kind_is_read_with_its_settings() {
        let (specs, wrong) = read(
            "[[detect.window]]\nname = \"second\"\nkind = \"tumbling\"\nsize_ms = 1_000\n\
             [[detect.window]]\nname = \"minute\"\nkind = \"sliding\"\nsize_ms = 60_000\n\
             every_ms = 10_000\ndevices = [\"press/+\", \"saw/#\"]\nmetrics = [\"t\"]\n\
             expected_interval_ms = 100\n\
             [[detect.window]]\nname = \"run\"\nkind = \"session\"\ngap_ms = 30_000\n\
             [[detect.window]]\nname = \"fifty\"\nkind = \"count\"\nreadings = 50\n\
             length_max_ms = 5_000\n",
        );
        assert_eq!(wrong, "");
        // Its text means the same.
        assert_eq!(read(&specs.text()), (Arc::clone(&specs), String::new()));
        let kinds: Vec<WindowKind> = specs.iter().map(|spec| spec.kind).collect();
        assert_eq!(
            kinds,
            [
                WindowKind::Tumbling { size: 1_000_000 },
                WindowKind::Sliding {
                    size: 60_000_000,
                    every: 10_000_000
                },
                WindowKind::Session {
                    gap: 30_000_000,
                    length_max: 3_600_000_000
                },
                WindowKind::Count {
                    readings: 50,
                    length_max: 5_000_000
                },
            ]
        );
        let minute = specs.iter().nth(1).unwrap();
        assert_eq!(minute.expected_interval, Some(100_000));
        assert!(minute.is_for("press/3", "t") && minute.is_for("saw/a/b", "t"));
        assert!(!minute.is_for("press/3", "v") && !minute.is_for("press", "t"));
        assert!(specs.iter().next().unwrap().is_for("any/thing", "x/y"));
    }

    #[test]
    fn everything_wrong_is_said_at_once_with_its_line() {
        let (_, wrong) = read(
            "[[detect.window]]\nname = \"a b\"\nkind = \"tumblin\"\nsize_ms = 0\n\
             [[detect.window]]\nkind = \"sliding\"\nsize_ms = 1_000\nevery_ms = 7\ngap_ms = 3\n\
             devices = []\nmetrics = [\"a/#/b\"]\nevry_ms = 5\n\
             [[detect.window]]\nname = \"c\"\nkind = \"session\"\n\
             [[detect.window]]\nname = \"c\"\nkind = \"count\"\nreadings = 1\nlength_max_ms = 0\n\
             [[detect.window]]\nname = \"d\"\n\
             [[detect.window]]\nname = \"e\"\nkind = \"sliding\"\nsize_ms = 5\nevery_ms = 6\n\
             [[detect.window]]\nname = \"f\"\nkind = \"session\"\ngap_ms = 6\nlength_max_ms = 5\n",
        );
        let said: Vec<&str> = wrong.lines().collect();
        assert_eq!(
            said,
            [
                "line 2: `detect.window[0].name` is \"a b\"; expected 1 to 64 letters, digits, \
                 `_`, `-` and `.`",
                "line 3: `detect.window[0].kind` is \"tumblin\"; expected one of tumbling, \
                 sliding, session, count; did you mean `tumbling`?",
                "line 4: `detect.window[0].size_ms` is 0; expected 1 to 604800000",
                "line 5: `detect.window[1].name` is missing: what are its aggregates called by?",
                "line 8: `detect.window[1].every_ms` makes 1000 panes of a window; at most 64: \
                 choose one that `size_ms` is a small multiple of",
                "line 9: `detect.window[1].gap_ms` has no meaning with `kind = \"sliding\"`",
                "line 10: `detect.window[1].devices` is empty: it selects nothing; leave it out \
                 for all",
                "line 11: `detect.window[1].metrics` holds \"a/#/b\", which goes on behind `#`, \
                 which must be the last level",
                "line 12: `detect.window[1].evry_ms` is not known; did you mean \
                 `detect.window[1].every_ms`?",
                "line 13: `detect.window[2].gap_ms` is missing: `kind = \"session\"` needs it",
                "line 19: `detect.window[3].readings` is 1; expected 2 to 1000000",
                "line 20: `detect.window[3].length_max_ms` is 0; expected 1 to 604800000",
                "line 21: `detect.window[4].kind` is missing: expected `tumbling`, `sliding`, \
                 `session` or `count`",
                "line 27: `detect.window[5].every_ms` is more than `size_ms`: readings between \
                 two windows would be in none",
                "line 31: `detect.window[6].gap_ms` is more than `length_max_ms`",
            ]
        );
    }

    #[test]
    fn names_are_used_once_and_windows_are_bounded() {
        let one = |i: usize| {
            format!("[[detect.window]]\nname = \"{i}\"\nkind = \"tumbling\"\nsize_ms = 1\n")
        };
        let all: String = (0..33).map(one).collect();
        let (specs, wrong) = read(&all);
        assert_eq!(specs.len(), 32);
        assert_eq!(
            wrong,
            "line 129: `detect.window[32]` is one too many: at most 32"
        );
        let long = format!("{}metrics = [\"{}\"]\n", one(1), "x".repeat(257));
        assert_eq!(
            read(&long).1,
            "line 5: `detect.window[0].metrics` holds a pattern of 257 bytes; at most 256"
        );
        let (_, wrong) = read(&[one(1), one(1)].concat());
        assert_eq!(
            wrong,
            "line 6: `detect.window[1].name` is \"1\", as of a window before it"
        );
    }
}
