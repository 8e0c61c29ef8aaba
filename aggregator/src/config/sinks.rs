//! `[sinks.<name>]`: where readings go beside the lake.

use crate::fanout::courier::Pace;
use crate::fanout::postgres::PostgresConfig;
use crate::limits::{SINK_CHUNK_ROWS_MAX, SINKS_MAX};
use std::net::IpAddr;
use std::path::PathBuf;
use tributary_settings::Section;

/// One sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SinkConfig {
    /// As it is called in metrics and commands.
    pub name: String,
    /// `required`: whether the journal keeps what it lacks whatever that costs. Otherwise a sink
    /// that is away for longer than the journal's quota lasts loses entries, which it declares.
    pub required: bool,
    /// `chunk_rows`, `interval_ms`.
    pub pace: Pace,
    /// `kind`, and what is of that kind.
    pub target: Target,
}

/// What a sink is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// `postgresql`
    Postgres(PostgresConfig),
}

/// Every sink that is configured.
pub(super) fn read(mut section: Section) -> Vec<SinkConfig> {
    let named = section.named_sections();
    if named.len() > SINKS_MAX {
        section.wrong_section(format!(
            "has {} sinks; at most {SINKS_MAX} are fed",
            named.len()
        ));
    }
    named
        .into_iter()
        .filter_map(|(name, section)| sink(name, section))
        .collect()
}

fn sink(name: String, mut section: Section) -> Option<SinkConfig> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        section.wrong_section("is no name of a sink; expected 1 to 64 of a-z, 0-9, `-`, `_`");
    }
    let kind = section.optional::<String>("kind");
    let rows = section.within("chunk_rows", (1, SINK_CHUNK_ROWS_MAX as u64), 32_768);
    let interval = section.within("interval_ms", (10, 3_600_000), 1_000);
    let required = section.or("required", true);
    let target = match kind.as_deref() {
        Some("postgresql") => Target::Postgres(postgres(&mut section)),
        Some(other) => {
            section.wrong("kind", format!("is `{other}`; expected `postgresql`"));
            return None;
        }
        None => {
            section.wrong_section("has no `kind`; expected `postgresql`");
            return None;
        }
    };
    Some(SinkConfig {
        name,
        required,
        pace: Pace {
            rows: usize::try_from(rows).unwrap_or(1),
            age_us: i64::try_from(interval * 1_000).unwrap_or(i64::MAX),
        },
        target,
    })
}

fn postgres(section: &mut Section) -> PostgresConfig {
    let days = section.optional::<u64>("retention_days");
    if days.is_some_and(|days| !(1..=36_500).contains(&days)) {
        section.wrong(
            "retention_days",
            "is out of range; expected 1 to 36500, or nothing",
        );
    }
    let config = PostgresConfig {
        host: section.or("host", "127.0.0.1".to_owned()),
        port: u16::try_from(section.within("port", (1, 65_535), 5_432)).unwrap_or(5_432),
        database: section.or("database", "tributary".to_owned()),
        user: section.or("user", "tributary".to_owned()),
        password_file: section.optional::<PathBuf>("password_file"),
        ca: section.optional::<PathBuf>("ca"),
        retention_days: days.and_then(|days| u32::try_from(days).ok()),
    };
    let is_near = config
        .host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback());
    if config.ca.is_none() && !is_near {
        let reason = format!(
            "is `{}`, and there is no `ca`: name the authority of its certificate (PEM), or a \
             loopback address",
            config.host
        );
        section.wrong("host", reason);
    }
    config
}
