//! `tributary-agent status`.

use super::alert::CommandError;
use crate::config::Config;
use crate::control::{Answer, Request, ask};
use crate::deadletter::show::escaped;
use crate::judge::{JudgedBy, WatchedSeries, Watching};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Say which series a running agent watches: which of them it still learns, and how long an alert
/// of them takes.
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
    match ask(dir, &Request::Status)? {
        Answer::Status(watching) if arguments.json => {
            let json = serde_json::to_string(&watching).map_err(std::io::Error::from)?;
            Ok(writeln!(out, "{json}")?)
        }
        Answer::Status(watching) => Ok(write!(out, "{}", text(&watching))?),
        Answer::Refused(why) => Err(CommandError::Refused(why)),
        other => Err(CommandError::Refused(format!("it answers {other:?}"))),
    }
}

fn text(watching: &Watching) -> String {
    let Watching {
        series,
        learning,
        fast,
        clock_trusted,
        listed,
    } = watching;
    let mut text =
        format!("{series} series, {learning} still learning; {fast} judged on 1 s windows\n");
    if *series > 0 && !clock_trusted {
        text.push_str("the gateway's clock is not trusted: see docs/detection.md, Time\n");
    }
    for series in listed {
        text.push_str(&line(series));
    }
    let more = series.saturating_sub(listed.len());
    if more > 0 {
        text.push_str(&format!("and {more} more\n"));
    }
    text
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
        let watching = Watching {
            series: 4,
            learning: 1,
            fast: 1,
            clock_trusted: false,
            listed: vec![
                series("t", JudgedBy::Readings, "learning (37 of 100)"),
                series("v", JudgedBy::Seconds, "judged"),
            ],
        };
        assert_eq!(
            text(&watching),
            "4 series, 1 still learning; 1 judged on 1 s windows\n\
             the gateway's clock is not trusted: see docs/detection.md, Time\n\
             site/pump t  learning (37 of 100), reading by reading\n\
             site/pump v  judged, on 1 s windows: alerts take up to 1.6 s\n\
             and 2 more\n"
        );
    }
}
