//! `docs/crash-matrix.md`: a row for each kind of fault that a proof brought about, and what came
//! of it. A proof that runs anew takes the place of its own rows; the others stay, each with the
//! commit that it ran on.

use super::table::{number_of, word};
use crate::results::machine::Machine;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

const DOCUMENT: &str = "docs/crash-matrix.md";
/// Between these lines of it stand the rows; all else is written by people.
const BEGIN: &str = "<!-- what follows is written by cargo xtask prove -->";
const END: &str = "<!-- up to here -->";
/// Heading and key of what is counted, in order.
const FIGURES: [(&str, &str); FIGURES_COUNT] = [
    ("acknowledged", "acknowledged"),
    ("declared", "declared"),
    ("excused", "excused"),
    ("set apart", "set_apart"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("altered", "altered"),
    ("alerts and aggregates missing", "told"),
    ("manual repairs", "repairs"),
];
const FIGURES_COUNT: usize = 9;
/// What the sums say of each kind.
const SUMMED: [&str; 4] = ["excused", "lost", "doubled", "repairs"];
/// Profiles of the simulation in which a disk loses what it had confirmed, a journal is lost, or an
/// aggregator never comes back.
const LIED: [&str; 3] = ["Tails", "LostJournal", "Failover"];
/// Where the runs of a row stand.
const RUNS: usize = 2;

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A schedule of a simulation.
    Simulated,
    /// One in which a disk lied about fdatasync, or a journal or an aggregator was lost for good.
    Lied,
    /// A scope of the model.
    Model,
    /// A power cut of real programs.
    PowerCut,
    /// A real kill.
    Kill,
    /// A bit in a file of a real program.
    Bit,
    /// A call of a real program that fails.
    Call,
    /// A disk that somebody else fills.
    Full,
}

impl Kind {
    /// Each with its name, and what several are called.
    const ALL: [(Self, &str, &str); 8] = [
        (Self::Simulated, "simulated", "simulated schedules"),
        (
            Self::Lied,
            "simulated, disk lost",
            "more in which a disk lied, or a journal or an aggregator was lost for good",
        ),
        (Self::Model, "model", "scopes of the model"),
        (Self::PowerCut, "power cut", "power cuts"),
        (Self::Kill, "kill", "kills"),
        (Self::Bit, "bit", "flipped bits"),
        (Self::Call, "failing call", "failing calls"),
        (Self::Full, "full disk", "full disks"),
    ];

    fn name(self) -> &'static str {
        let all = Self::ALL.iter();
        let mut names = all.filter(|(kind, ..)| *kind == self);
        names.next().map_or("", |(_, name, _)| name)
    }

    fn of(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|(_, known, _)| *known == name)
            .map(|(kind, ..)| kind)
    }
}

/// One kind of fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    kind: Kind,
    fault: String,
    runs: u64,
    /// In the order of their columns; `None`: the proof does not tell it apart.
    figures: [Option<u64>; FIGURES_COUNT],
}

/// A row from what a program counted. A figure that is not there is an error, unless it is among
/// those that the program does not tell.
fn row(kind: Kind, fault: &str, counted: &Value, untold: &[&str]) -> Result<Row> {
    let mut figures = [None; FIGURES_COUNT];
    for (figure, (_, key)) in figures.iter_mut().zip(FIGURES) {
        if !untold.contains(&key) {
            *figure = Some(number_of(counted, key)?);
        }
    }
    Ok(Row {
        kind,
        fault: fault.to_owned(),
        runs: number_of(counted, "runs")?,
        figures,
    })
}

/// Rows of `prove kills`: one for each quality of service.
pub fn kills(runs: &[Value]) -> Result<Vec<Row>> {
    let points = ["synced", "unsynced", "torn", "written", "acked"];
    let of = |run: &Value| {
        let each = points.map(|point| number_of(run, &format!("kills_{point}")));
        let kills: Result<u64> = each.into_iter().sum();
        let (synced, qos) = (number_of(run, "kills_synced")?, number_of(run, "qos")?);
        let counted = json!({
            "runs": kills?,
            "acknowledged": number_of(run, "acknowledged")?,
            "lost": number_of(run, "lost")?,
            "doubled": number_of(run, "duplicates")?,
            "altered": number_of(run, "altered")?,
        });
        let fault =
            format!("the agent, {synced} of them between fdatasync and acknowledgement, QoS {qos}");
        row(
            Kind::Kill,
            &fault,
            &counted,
            // Whoever does not start by itself ends the proof.
            &["declared", "excused", "set_apart", "told", "repairs"],
        )
    };
    runs.iter().map(of).collect()
}

/// The row of `prove chaos`: whatever was killed or cut, over all seeds.
pub fn chaos(runs: &[Value], qos: u8) -> Result<Vec<Row>> {
    let sum = |key: &str| {
        runs.iter()
            .map(|run| number_of(run, key))
            .sum::<Result<u64>>()
    };
    let (agent, aggregator) = (sum("kills_agent")?, sum("kills_aggregator")?);
    let cuts = sum("link_cuts")?;
    let counted = json!({
        "runs": agent + aggregator,
        // All of it, in the end: a device sends again what nobody answered.
        "acknowledged": sum("published")?,
        // What is there with another content is among them.
        "lost": sum("lost")?,
        "doubled": sum("duplicates")?,
    });
    let fault = format!(
        "agent ({agent}) and aggregator ({aggregator}) at any time, with {cuts} cuts of the link, \
         QoS {qos}"
    );
    let untold = [
        "declared",
        "excused",
        "set_apart",
        "altered",
        "told",
        "repairs",
    ];
    Ok(vec![row(Kind::Kill, &fault, &counted, &untold)?])
}

/// Rows of `prove power-cuts` and `prove full-disk`: each says its kind.
pub fn real(rows: &[Value]) -> Result<Vec<Row>> {
    let of = |counted: &Value| {
        let kind = Kind::of(word(counted, "kind")?).context("a row of no known kind")?;
        row(kind, word(counted, "fault")?, counted, &[])
    };
    rows.iter().map(of).collect()
}

/// Rows of `prove sim`: one for each profile. Only where a disk lied may anything be excused.
pub fn simulated(runs: &[Value]) -> Result<Vec<Row>> {
    let of = |run: &Value| {
        let profile = word(run, "profile")?;
        let kind = match LIED.contains(&profile) {
            true => Kind::Lied,
            false => Kind::Simulated,
        };
        let excused = number_of(run, "excused")?;
        ensure!(
            kind == Kind::Lied || excused == 0,
            "profile {profile}: {excused} batches were excused, and its disks keep their word"
        );
        let fault = format!("both ends of a session, profile `{profile}`");
        row(kind, &fault, run, &["set_apart", "altered", "told"])
    };
    runs.iter().map(of).collect()
}

/// The row of `prove whole` or `prove turmoil`.
pub fn swept(fault: &str, run: &Value) -> Result<Vec<Row>> {
    let untold = ["excused", "set_apart", "altered", "told"];
    Ok(vec![row(Kind::Simulated, fault, run, &untold)?])
}

/// Rows of `prove model`: one for each scope, in which every order of events is one run. A rule
/// that does not hold would be a loss, a doubling, or a state that only a person gets out of.
pub fn model(scopes: &[Value]) -> Result<Vec<Row>> {
    let of = |scope: &Value| {
        let broken = number_of(scope, "broken")?;
        let counted = json!({"runs": 1, "lost": broken, "doubled": broken, "repairs": broken});
        let (name, states) = (word(scope, "scope")?, number_of(scope, "states")?);
        let fault = format!("every order of events, scope `{name}`: {states} states");
        let untold = [
            "acknowledged",
            "declared",
            "excused",
            "set_apart",
            "altered",
            "told",
        ];
        row(Kind::Model, &fault, &counted, &untold)
    };
    scopes.iter().map(of).collect()
}

/// Puts the rows of a proof in the place of its older ones.
pub fn keep(root: &Path, proof: &str, machine: &Machine, rows: &[Row]) -> Result<()> {
    let path = root.join(DOCUMENT);
    let before = std::fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    let text = page(&before, proof, &machine.when(), rows)?;
    std::fs::write(&path, text).with_context(|| format!("writing {DOCUMENT}"))?;
    println!("{DOCUMENT} is written");
    Ok(())
}

/// The page with these rows. `when`: commit and day.
fn page(before: &str, proof: &str, when: &str, rows: &[Row]) -> Result<String> {
    let parts = before.split_once(BEGIN).and_then(|(head, rest)| {
        let (rows, tail) = rest.split_once(END)?;
        Some((head, rows, tail))
    });
    let (head, older, tail) =
        parts.with_context(|| format!("{DOCUMENT}: no `{BEGIN}` … `{END}`"))?;
    let mut lines = kept(older, proof)?;
    for row in rows {
        ensure!(
            !row.fault.contains('|'),
            "a `|` in the name of a fault: {}",
            row.fault
        );
        let Row {
            kind, fault, runs, ..
        } = row;
        let figures = row.figures.map(|figure| match figure {
            Some(figure) => figure.to_string(),
            None => "–".to_owned(),
        });
        lines.push(format!(
            "| {} | {fault} | {runs} | {} | {proof}; {when} |",
            kind.name(),
            figures.join(" | ")
        ));
    }
    // Kinds in their order; within one, as the proofs said them.
    lines.sort_by_key(|line| {
        let mut kinds = Kind::ALL.iter();
        kinds.position(|(kind, ..)| Some(*kind) == kind_of(line))
    });
    let mut text = format!("{head}{BEGIN}\n\n{}\n", sums(&lines)?);
    writeln!(text, "{}", heading())?;
    writeln!(text, "|{}", "---|".repeat(columns()))?;
    for line in lines {
        writeln!(text, "{line}")?;
    }
    write!(text, "\n{END}{tail}")?;
    Ok(text)
}

fn heading() -> String {
    let figures = FIGURES.map(|(name, _)| name).join(" | ");
    format!("| kind | fault | runs | {figures} | proof |")
}

fn columns() -> usize {
    cells(&heading()).count()
}

/// The rows of other proofs. Of a page with other columns none is kept: its figures do not say
/// what these columns say.
fn kept(before: &str, proof: &str) -> Result<Vec<String>> {
    let mut rows = before
        .lines()
        .filter(|line| kind_of(line).is_some())
        .peekable();
    if rows.peek().is_some() && !before.contains(&heading()) {
        println!("{DOCUMENT} had other columns: its rows go, and their proofs are to be run anew");
        return Ok(Vec::new());
    }
    let mine = format!("| {proof}; ");
    let kept: Vec<String> = rows
        .filter(|line| !line.contains(&mine))
        .map(str::to_owned)
        .collect();
    for line in &kept {
        ensure!(
            cells(line).count() == columns(),
            "{DOCUMENT} was changed by hand: {line}"
        );
    }
    Ok(kept)
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    let inner = line
        .strip_prefix('|')
        .and_then(|line| line.strip_suffix('|'));
    inner.unwrap_or_default().split('|').map(str::trim)
}

fn kind_of(line: &str) -> Option<Kind> {
    Kind::of(cells(line).next()?)
}

/// Lines that say how often each kind of fault came, over all rows, and what came of it.
fn sums(lines: &[String]) -> Result<String> {
    let mut text = String::new();
    for (kind, name, many) in Kind::ALL {
        let sum = |place: usize| {
            let rows = lines.iter().filter(|line| kind_of(line) == Some(kind));
            let figures = rows.map(|line| match cells(line).nth(place).unwrap_or_default() {
                "–" => Ok(0),
                figure => figure
                    .parse::<u64>()
                    .with_context(|| format!("{DOCUMENT}: no count in column {place} of {line}")),
            });
            figures.sum::<Result<u64>>()
        };
        let mut sums = Vec::new();
        for (place, (name, key)) in (RUNS + 1..).zip(FIGURES) {
            if SUMMED.contains(&key) {
                sums.push(format!("{name} {}", sum(place)?));
            }
        }
        let runs = sum(RUNS)?;
        if runs == 0 {
            writeln!(text, "- {name}: not run yet")?;
            continue;
        }
        writeln!(text, "- {runs} {many}: {}", sums.join(", "))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(more: Value) -> Value {
        let mut counted = json!({"runs": 10, "acknowledged": 9, "declared": 1, "excused": 0,
            "set_apart": 0, "lost": 0, "doubled": 0, "altered": 0, "told": 0, "repairs": 0});
        let object = counted.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        counted
    }

    fn cut(runs: u64) -> Row {
        let fault = "the agent's power: all of it survives";
        let counted = counted(json!({"kind": "power cut", "fault": fault, "runs": runs}));
        real(&[counted]).unwrap().remove(0)
    }

    fn links(excused: u64) -> Result<Vec<Row>> {
        simulated(&[counted(json!({"profile": "Links", "excused": excused}))])
    }

    #[test]
    fn a_proof_takes_the_place_of_its_own_rows() {
        let empty = format!("above\n\n{BEGIN}\n{END}\n\nbelow\n");
        let first = page(&empty, "cuts", "abc, 2026-01-01", &[cut(3), cut(4)]).unwrap();
        assert!(first.contains("- 7 power cuts: excused 0, lost 0, doubled 0, manual repairs 0\n"));
        assert!(first.contains("- simulated: not run yet\n"));
        let both = page(&first, "sim", "abd, 2026-01-02", &links(0).unwrap()).unwrap();
        assert!(both.contains(
            "- 10 simulated schedules: excused 0, lost 0, doubled 0, manual repairs 0\n"
        ));
        let again = page(&both, "cuts", "abe, 2026-01-03", &[cut(5)]).unwrap();
        assert!(again.contains("- 5 power cuts: "));
        assert!(again.starts_with("above\n\n") && again.ends_with("\n\nbelow\n"));
        let rows: Vec<&str> = again
            .lines()
            .filter(|line| kind_of(line).is_some())
            .collect();
        assert_eq!(
            rows,
            [
                "| simulated | both ends of a session, profile `Links` | 10 | 9 | 1 | 0 | – | 0 \
                 | 0 | – | – | 0 | sim; abd, 2026-01-02 |",
                "| power cut | the agent's power: all of it survives | 5 | 9 | 1 | 0 | 0 | 0 | 0 \
                 | 0 | 0 | 0 | cuts; abe, 2026-01-03 |",
            ]
        );
    }

    #[test]
    fn every_loss_doubling_and_repair_is_in_the_sum_of_its_kind() {
        let broken = json!({"kind": "bit", "fault": "one", "lost": 2, "doubled": 3, "repairs": 4});
        let rows = real(&[counted(broken.clone()), counted(broken)]).unwrap();
        let text = page(&format!("{BEGIN}\n{END}"), "bits", "abc, 2026-01-01", &rows).unwrap();
        assert!(
            text.contains("- 20 flipped bits: excused 0, lost 4, doubled 6, manual repairs 8\n"),
            "{text}"
        );
    }

    #[test]
    fn only_a_disk_that_lies_excuses() {
        assert!(links(1).is_err());
        let tails = counted(json!({"profile": "Tails", "excused": 7}));
        let rows = simulated(&[tails]).unwrap();
        assert_eq!((rows[0].kind, rows[0].figures[2]), (Kind::Lied, Some(7)));
    }

    #[test]
    fn every_kill_of_a_run_counts() {
        let run = json!({"qos": 1, "kills_synced": 1_000, "kills_unsynced": 1, "kills_torn": 2,
            "kills_written": 3, "kills_acked": 4, "acknowledged": 70, "lost": 0, "duplicates": 0,
            "altered": 0});
        let rows = kills(std::slice::from_ref(&run)).unwrap();
        assert_eq!((rows[0].runs, rows[0].figures[0]), (1_010, Some(70)));
        assert!(kills(&[json!({"qos": 1})]).is_err());
    }

    #[test]
    fn chaos_is_one_row_over_all_seeds() {
        let run = json!({"kills_agent": 3, "kills_aggregator": 2, "link_cuts": 7, "published": 50,
            "lost": 0, "duplicates": 0});
        let rows = chaos(&[run.clone(), run], 2).unwrap();
        assert_eq!((rows[0].runs, rows[0].figures[0]), (10, Some(100)));
        assert!(rows[0].fault.ends_with("with 14 cuts of the link, QoS 2"));
    }

    #[test]
    fn a_scope_in_which_a_rule_is_broken_is_no_row_of_zeros() {
        let scope = |broken: u64| json!({"scope": "one", "states": 5, "broken": broken});
        let rows = model(&[scope(0), scope(1)]).unwrap();
        let lost = rows.iter().map(|row| row.figures[4]);
        assert!(lost.eq([Some(0), Some(1)]));
    }

    #[test]
    fn a_page_that_was_changed_by_hand_is_left_alone() {
        let by_hand = format!("{BEGIN}\n{}\n| kill | by hand | 3 |\n{END}\n", heading());
        for torn in [&*by_hand, "nothing to write between"] {
            assert!(page(torn, "sim", "abc, 2026-01-01", &[]).is_err());
        }
    }

    #[test]
    fn rows_of_other_columns_go() {
        let older = format!("{BEGIN}\n| kind | fault | runs |\n| kill | the agent | 3 |\n{END}\n");
        let text = page(&older, "cuts", "abc, 2026-01-01", &[cut(3)]).unwrap();
        assert!(!text.contains("| kill | the agent") && text.contains("| power cut | "));
    }
}
