//! `docs/crash-matrix.md`: a row for each kind of fault that a proof brought about, and what came
//! of it. A proof that runs anew takes the place of its own rows; the others stay, each with the
//! commit that it ran on.

use super::table::number_of;
use crate::results::machine::Machine;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const DOCUMENT: &str = "docs/crash-matrix.md";
/// Between these lines of it stand the rows; all else is written by people.
const BEGIN: &str = "<!-- what follows is written by cargo xtask prove -->";
const END: &str = "<!-- up to here -->";
const COLUMNS: [&str; 11] = [
    "kind",
    "fault",
    "runs",
    "acknowledged",
    "declared",
    "set apart",
    "excused",
    "lost",
    "doubled",
    "manual repairs",
    "proof",
];

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A schedule of a simulation.
    Simulated,
    /// Power cuts of real programs.
    PowerCut,
    /// Real kills.
    Kill,
    /// A bit in a file of a real program.
    Bit,
    /// A call of a real program that fails.
    Call,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Simulated,
        Self::PowerCut,
        Self::Kill,
        Self::Bit,
        Self::Call,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::PowerCut => "power cut",
            Self::Kill => "kill",
            Self::Bit => "bit",
            Self::Call => "failing call",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One kind of fault. `acknowledged`, `lost` and `doubled` are readings, of a simulation batches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What breaks.
    pub kind: Kind,
    /// How.
    pub fault: String,
    /// How often.
    pub runs: u64,
    /// Acknowledged, over all runs.
    pub acknowledged: u64,
    /// Declared lost, where the proof tells that apart from lost.
    pub declared: Option<u64>,
    /// Whole, but beside the lake's tables: for a person to put back. Where it can be.
    pub set_apart: Option<u64>,
    /// Gone, as the documents name it as the cost of this fault. Where there is such a cost.
    pub excused: Option<u64>,
    /// Nowhere, and not declared.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// Runs that wanted a person.
    pub repairs: u64,
}

/// Rows of `prove kills`: one for each quality of service.
pub fn kills(runs: &[Value]) -> Result<Vec<Row>> {
    let points = ["synced", "unsynced", "torn", "written", "acked"];
    let row = |run: &Value| {
        let each = points.map(|point| number_of(run, &format!("kills_{point}")));
        let kills: Result<u64> = each.into_iter().sum();
        let (synced, qos) = (number_of(run, "kills_synced")?, number_of(run, "qos")?);
        Ok(Row {
            kind: Kind::Kill,
            fault: format!(
                "the agent, {synced} of them between fdatasync and acknowledgement, QoS {qos}"
            ),
            runs: kills?,
            acknowledged: number_of(run, "acknowledged")?,
            declared: None,
            set_apart: None,
            excused: None,
            lost: number_of(run, "lost")?,
            doubled: number_of(run, "duplicates")?,
            // Whoever does not start by itself ends the proof.
            repairs: 0,
        })
    };
    runs.iter().map(row).collect()
}

/// The row of `prove chaos`: whatever was killed or cut, over all seeds.
pub fn chaos(runs: &[Value], qos: u8) -> Result<Vec<Row>> {
    let sum = |key: &str| {
        runs.iter()
            .map(|run| number_of(run, key))
            .sum::<Result<u64>>()
    };
    let (agent, aggregator) = (sum("kills_agent")?, sum("kills_aggregator")?);
    Ok(vec![Row {
        kind: Kind::Kill,
        fault: format!(
            "agent ({agent}) and aggregator ({aggregator}) at any time, with {} cuts of the link, \
             QoS {qos}",
            sum("link_cuts")?
        ),
        runs: agent + aggregator,
        // All of it, in the end: a device sends again what nobody answered.
        acknowledged: sum("published")?,
        declared: None,
        set_apart: None,
        excused: None,
        lost: sum("lost")?,
        doubled: sum("duplicates")?,
        repairs: 0,
    }])
}

/// Rows of `prove power-cuts`.
pub fn power_cuts(rows: &[Value]) -> Result<Vec<Row>> {
    let row = |figures: &Value| {
        let fault = figures.get("fault").and_then(Value::as_str);
        let fault = fault.context("a row without a name")?;
        let kind = match fault {
            _ if fault.contains("power: ") || fault.ends_with("the power") => Kind::PowerCut,
            _ if fault.starts_with("one bit: ") => Kind::Bit,
            _ => Kind::Call,
        };
        let set_apart = Some(number_of(figures, "set_apart")?);
        row((kind, fault.to_owned()), set_apart, figures)
    };
    rows.iter().map(row).collect()
}

/// Rows of `prove sim`: one for each profile. It ends with the first seed that loses or doubles.
pub fn simulated(runs: &[Value]) -> Result<Vec<Row>> {
    let row = |run: &Value| {
        let profile = run.get("profile").and_then(Value::as_str);
        let profile = profile.context("a sweep without a profile")?;
        let fault = format!("both ends of a session, profile `{profile}`");
        row((Kind::Simulated, fault), None, run)
    };
    runs.iter().map(row).collect()
}

/// A figure that is not there is an error.
fn row((kind, fault): (Kind, String), set_apart: Option<u64>, figures: &Value) -> Result<Row> {
    Ok(Row {
        kind,
        fault,
        runs: number_of(figures, "runs")?,
        acknowledged: number_of(figures, "acknowledged")?,
        declared: Some(number_of(figures, "declared")?),
        set_apart,
        excused: Some(number_of(figures, "excused")?),
        lost: number_of(figures, "lost")?,
        doubled: number_of(figures, "doubled")?,
        repairs: number_of(figures, "repairs")?,
    })
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
            kind,
            fault,
            runs,
            acknowledged,
            declared,
            set_apart,
            excused,
            lost,
            doubled,
            repairs,
        } = row;
        let kind = kind.name();
        let told_apart = [declared, set_apart, excused];
        let [declared, set_apart, excused] = told_apart.map(|figure| match figure {
            Some(figure) => figure.to_string(),
            None => "–".to_owned(),
        });
        lines.push(format!(
            "| {kind} | {fault} | {runs} | {acknowledged} | {declared} | {set_apart} | \
             {excused} | {lost} | {doubled} | {repairs} | {proof}; {when} |"
        ));
    }
    // Kinds in their order; within one, as the proofs said them.
    lines.sort_by_key(|line| {
        Kind::ALL
            .iter()
            .position(|kind| Some(*kind) == kind_of(line))
    });
    let mut text = format!("{head}{BEGIN}\n\n{}\n", sums(&lines)?);
    writeln!(text, "| {} |", COLUMNS.join(" | "))?;
    writeln!(text, "|{}", "---|".repeat(COLUMNS.len()))?;
    for line in lines {
        writeln!(text, "{line}")?;
    }
    write!(text, "\n{END}{tail}")?;
    Ok(text)
}

/// The rows of other proofs.
fn kept(before: &str, proof: &str) -> Result<Vec<String>> {
    let mine = format!("| {proof}; ");
    let rows = before.lines().filter(|line| kind_of(line).is_some());
    let kept: Vec<String> = rows
        .filter(|line| !line.contains(&mine))
        .map(str::to_owned)
        .collect();
    for line in &kept {
        ensure!(
            cells(line).count() == COLUMNS.len(),
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

/// A line that says how often each kind of fault came, over all rows.
fn sums(lines: &[String]) -> Result<String> {
    let runs = |kind| {
        let rows = lines.iter().filter(|line| kind_of(line) == Some(kind));
        let runs = rows.map(|line| {
            let runs = cells(line).nth(2).unwrap_or_default();
            runs.parse::<u64>()
                .with_context(|| format!("{DOCUMENT}: no count of runs in {line}"))
        });
        runs.sum::<Result<u64>>()
    };
    let [simulated, cuts, kills, bits, calls] = Kind::ALL.map(runs);
    Ok(format!(
        "In all {} simulated schedules, {} power cuts, {} kills, {} flipped bits, {} failing \
         calls.\n",
        simulated?, cuts?, kills?, bits?, calls?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cut(runs: u64) -> Row {
        let figures = json!({"fault": "the agent's power: all of it survives", "runs": runs,
            "acknowledged": 9, "declared": 0, "set_apart": 0, "excused": 0, "lost": 0,
            "doubled": 0, "repairs": 0});
        power_cuts(&[figures]).unwrap().remove(0)
    }

    #[test]
    fn a_proof_takes_the_place_of_its_own_rows() {
        let empty = format!("above\n\n{BEGIN}\n{END}\n\nbelow\n");
        let first = page(&empty, "cuts", "abc, 2026-01-01", &[cut(3), cut(4)]).unwrap();
        assert!(first.contains("In all 0 simulated schedules, 7 power cuts, 0 kills"));
        let run = json!({"profile": "links", "runs": 10, "acknowledged": 100, "declared": 1,
            "excused": 2, "lost": 0, "doubled": 0, "repairs": 0});
        let simulated = simulated(&[run]).unwrap();
        let both = page(&first, "sim", "abd, 2026-01-02", &simulated).unwrap();
        assert!(both.contains("In all 10 simulated schedules, 7 power cuts"));
        let again = page(&both, "cuts", "abe, 2026-01-03", &[cut(5)]).unwrap();
        assert!(again.contains("In all 10 simulated schedules, 5 power cuts"));
        assert!(again.starts_with("above\n\n") && again.ends_with("\n\nbelow\n"));
        let rows: Vec<&str> = again
            .lines()
            .filter(|line| kind_of(line).is_some())
            .collect();
        assert_eq!(
            rows,
            [
                "| simulated | both ends of a session, profile `links` | 10 | 100 | 1 | – | 2 | 0 \
                 | 0 | 0 | sim; abd, 2026-01-02 |",
                "| power cut | the agent's power: all of it survives | 5 | 9 | 0 | 0 | 0 | 0 | 0 \
                 | 0 | cuts; abe, 2026-01-03 |",
            ]
        );
    }

    #[test]
    fn every_kill_of_a_run_counts() {
        let run = json!({"qos": 1, "kills_synced": 1_000, "kills_unsynced": 1, "kills_torn": 2,
            "kills_written": 3, "kills_acked": 4, "acknowledged": 70, "lost": 0, "duplicates": 0});
        let rows = kills(std::slice::from_ref(&run)).unwrap();
        assert_eq!((rows[0].runs, rows[0].acknowledged), (1_010, 70));
        assert!(kills(&[json!({"qos": 1})]).is_err());
    }

    #[test]
    fn chaos_is_one_row_over_all_seeds() {
        let run = json!({"kills_agent": 3, "kills_aggregator": 2, "link_cuts": 7, "published": 50,
            "lost": 0, "duplicates": 0});
        let rows = chaos(&[run.clone(), run], 2).unwrap();
        assert_eq!((rows[0].runs, rows[0].acknowledged), (10, 100));
        assert!(rows[0].fault.ends_with("with 14 cuts of the link, QoS 2"));
    }

    #[test]
    fn a_page_that_was_changed_by_hand_is_left_alone() {
        let by_hand = format!("{BEGIN}\n| kill | by hand | 3 |\n{END}\n");
        for torn in [&*by_hand, "nothing to write between"] {
            assert!(page(torn, "sim", "abc, 2026-01-01", &[]).is_err());
        }
    }
}
