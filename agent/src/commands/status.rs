//! `tributary-agent status`.

use super::alert::CommandError;
use super::buffer::listed;
use crate::buffer::{BufferError, View};
use crate::config::Config;
use crate::control::{Answer, AskError, Request, ask, fenced_line};
use crate::deadletter::show::escaped;
use crate::judge::{
    Configured, ConfiguredKind, JudgedBy, NumberText, SuspectClock, WatchedSeries, Watching,
};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Say which series a running agent watches: which of them it still learns, and how long an alert
/// of them takes. Where none runs, say what lies in its folder.
///
/// Exit codes: 0 well, 1 something was not, 2 usage.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// The agent's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One object of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    arguments: &StatusArguments,
    config: &Config,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let configured = &config.agent.data_dir;
    let dir = arguments.data_dir.as_ref().unwrap_or(configured);
    let asked = ask(dir, &Request::Status);
    if let Err(AskError::NotRunning { .. }) = &asked {
        // What is said beside it: that none runs.
        say_stored(dir, arguments.json, out)?;
    }
    match asked? {
        Answer::Status(watching) if arguments.json => {
            let json = serde_json::to_string(&watching).map_err(std::io::Error::from)?;
            Ok(writeln!(out, "{json}")?)
        }
        Answer::Status(watching) => Ok(write!(out, "{}", text(&watching))?),
        Answer::Refused(why) => Err(CommandError::Refused(why)),
        other => Err(CommandError::Refused(format!("it answers {other:?}"))),
    }
}

/// What lies in the folder of an agent that does not run, or why that can't be told; nothing where
/// none ever did.
fn say_stored(dir: &Path, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let view = match View::open(dir) {
        Ok(view) => view,
        Err(BufferError::NoData { .. }) => return Ok(()),
        Err(error) if json => {
            let stored = serde_json::json!({ "running": false, "error": error.to_string() });
            return writeln!(out, "{stored}");
        }
        Err(error) => return writeln!(out, "what it has stored can't be told: {error}"),
    };
    if json {
        let stored = serde_json::json!({ "running": false, "buffers": view.list() });
        return writeln!(out, "{stored}");
    }
    write!(out, "{}", listed(&view.list(), false))
}

/// What a running agent watches, for people.
pub fn text(watching: &Watching) -> String {
    let Watching {
        series,
        learning,
        fast,
        clock_trusted,
        suspect_clocks,
        clocks,
        number_texts,
        configured,
        listed,
        fenced_last_hour,
        away_at,
        in_doubt_batches,
    } = watching;
    let mut text =
        format!("{series} series, {learning} still learning; {fast} judged on 1 s windows\n");
    if *fenced_last_hour > 0 {
        text.push_str(&fenced_line(*fenced_last_hour));
    }
    if !away_at.is_empty() {
        let at = escaped(away_at);
        text.push_str(&format!("away from home: its aggregator is {at}\n"));
    }
    if *in_doubt_batches > 0 {
        text.push_str(&format!(
            "{in_doubt_batches} batches in doubt: another aggregator may hold them\n"
        ));
    }
    if *series > 0 && !clock_trusted {
        text.push_str("the gateway's clock is not trusted: see docs/detection.md, Time\n");
    }
    clocks
        .iter()
        .for_each(|clock| text.push_str(&clock_line(clock)));
    let more = suspect_clocks.saturating_sub(clocks.len());
    if more > 0 {
        text.push_str(&format!("and the clocks of {more} more devices\n"));
    }
    for NumberText {
        device,
        metric,
        text: number,
    } in number_texts
    {
        text.push_str(&format!(
            "{} {}  says numbers as texts (\"{}\"), which nothing judges: have [[decode]] give it \
             `type = \"f64\"`\n",
            escaped(device),
            escaped(metric),
            escaped(number)
        ));
    }
    configured
        .iter()
        .for_each(|it| text.push_str(&configured_line(it)));
    for series in listed {
        text.push_str(&line(series));
    }
    let more = series.saturating_sub(listed.len());
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
}

fn clock_line(SuspectClock { device, ahead_s }: &SuspectClock) -> String {
    let units = [
        ("year", 31_557_600),
        ("day", 86_400),
        ("hour", 3_600),
        ("minute", 60),
    ];
    let off = ahead_s.unsigned_abs();
    let unit = units.into_iter().find(|(_, seconds)| off >= *seconds);
    let (unit, seconds) = unit.unwrap_or(("second", 1));
    let count = off / seconds;
    let plural = if count == 1 { "" } else { "s" };
    let side = if *ahead_s < 0 { "behind" } else { "ahead" };
    let device = escaped(device);
    format!("{device}  its clock is not believed: {count} {unit}{plural} {side}\n")
}

fn configured_line(it: &Configured) -> String {
    let kind = match it.kind {
        ConfiguredKind::Rule => "rule",
        ConfiguredKind::Window => "window",
        ConfiguredKind::Group => "group",
    };
    let Configured {
        of, count, judged, ..
    } = it;
    let now = match (count, judged) {
        (0, _) => "warning: no series fits yet: are its patterns what was meant?".to_owned(),
        (1, 1) if of == "devices" => "1 device".to_owned(),
        (_, judged) if judged == count => format!("{count} {of}"),
        (_, judged) => format!("{count} {of}, of which {judged} could be judged so far"),
    };
    format!("{kind} \"{}\"  {now}\n", escaped(&it.name))
}

fn line(series: &WatchedSeries) -> String {
    let WatchedSeries {
        device,
        metric,
        judged_by,
        state,
    } = series;
    let by = match judged_by {
        JudgedBy::Readings => "reading by reading",
        JudgedBy::Seconds => "on 1 s windows: alerts take up to 1.6 s",
        JudgedBy::PeakToPeak => "peak to peak of 1 s windows: alerts take up to 1.6 s",
    };
    format!("{} {}  {state}, {by}\n", escaped(device), escaped(metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_is_learned_and_how_long_alerts_take() {
        let series = |metric: &str, judged_by, state: &str| WatchedSeries {
            device: "site/pump".to_owned(),
            metric: metric.to_owned(),
            judged_by,
            state: state.to_owned(),
        };
        let clock = |device: &str, ahead_s| SuspectClock {
            device: device.to_owned(),
            ahead_s,
        };
        let configured = |kind, name: &str, (of, count, judged): (&str, _, _)| Configured {
            kind,
            name: name.to_owned(),
            of: of.to_owned(),
            count,
            judged,
        };
        let watching = Watching {
            series: 4,
            learning: 1,
            fast: 1,
            clock_trusted: false,
            suspect_clocks: 3,
            clocks: vec![clock("gateway-7/pump-3", -1_795_204_800), clock("p", 119)],
            number_texts: vec![NumberText {
                device: "site/pump".to_owned(),
                metric: "w".to_owned(),
                text: "23.5".to_owned(),
            }],
            configured: vec![
                configured(ConfiguredKind::Rule, "hot", ("series", 12, 12)),
                configured(ConfiguredKind::Rule, "dry", ("devices", 2, 0)),
                configured(ConfiguredKind::Window, "ten", ("series", 0, 0)),
                configured(ConfiguredKind::Group, "spindle", ("devices", 1, 1)),
            ],
            listed: vec![
                series("t", JudgedBy::Readings, "learning (37 of 100)"),
                series("v", JudgedBy::Seconds, "judged"),
            ],
            fenced_last_hour: 2,
            away_at: "second:7443".to_owned(),
            in_doubt_batches: 3,
        };
        assert_eq!(
            text(&watching),
            "4 series, 1 still learning; 1 judged on 1 s windows\n\
             another machine with this agent's identity ended its session 2 times in the last \
             hour: see docs/identity.md\n\
             away from home: its aggregator is second:7443\n\
             3 batches in doubt: another aggregator may hold them\n\
             the gateway's clock is not trusted: see docs/detection.md, Time\n\
             gateway-7/pump-3  its clock is not believed: 56 years behind\n\
             p  its clock is not believed: 1 minute ahead\n\
             and the clocks of 1 more devices\n\
             site/pump w  says numbers as texts (\"23.5\"), which nothing judges: have \
             [[decode]] give it `type = \"f64\"`\n\
             rule \"hot\"  12 series\n\
             rule \"dry\"  2 devices, of which 0 could be judged so far\n\
             window \"ten\"  warning: no series fits yet: are its patterns what was meant?\n\
             group \"spindle\"  1 device\n\
             site/pump t  learning (37 of 100), reading by reading\n\
             site/pump v  judged, on 1 s windows: alerts take up to 1.6 s\n\
             and 2 more\n"
        );
    }

    #[test]
    fn nobody_is_warned_of_a_clock_that_judges_nothing_or_is_right() {
        for (series, clock_trusted, warned) in [
            (0, false, false),
            (0, true, false),
            (1, true, false),
            (1, false, true),
        ] {
            let watching = Watching {
                series,
                clock_trusted,
                ..Watching::default()
            };
            let text = text(&watching);
            assert_eq!(text.contains("not trusted"), warned, "{text}");
        }
    }
}
