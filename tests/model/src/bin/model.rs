//! Checks the scopes of the model, each to its end: those of `.ci/run`, with `--proof` the larger
//! ones as well, or those whose names are given. The last line is JSON. Ends with 1 when a rule
//! does not hold, or when something never happened that a scope is there for.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_model::Protocol;
use tributary_model::check::{Checked, check};
use tributary_model::scope::{CHECKED, PROVED, Scope};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = || CHECKED.into_iter().chain(PROVED);
    let scopes: Vec<Scope> = match wanted.first().map(String::as_str) {
        None => CHECKED.to_vec(),
        Some("--proof") => all().collect(),
        Some(_) => all()
            .filter(|it| wanted.iter().any(|name| name == it.name))
            .collect(),
    };
    if scopes.is_empty() {
        let names: Vec<_> = all().map(|scope| scope.name).collect();
        eprintln!("no scope is called {wanted:?}: there are {names:?}");
        return ExitCode::from(2);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut failed, mut rows) = (0, Vec::new());
    for scope in scopes {
        let checked = check(Protocol::new(scope), threads);
        failed += usize::from(!is_well(&scope, &checked));
        rows.push(row(&scope, &checked));
    }
    println!("[{}]", rows.join(","));
    ExitCode::from(u8::from(failed > 0))
}

/// Whether all holds and everything happened; says so.
fn is_well(scope: &Scope, checked: &Checked) -> bool {
    let Checked {
        states,
        steps,
        depth,
        took,
        ..
    } = checked;
    let seconds = took.as_secs_f64();
    let name = scope.name;
    println!("{name}: {states} states, {steps} steps, {depth} deep, {seconds:.1} s");
    if let Some(broken) = &checked.broken {
        println!("    {} does not hold after", broken.rule.name());
        broken
            .steps
            .iter()
            .for_each(|step| println!("        {step:?}"));
        println!("    and then, with nothing breaking any more:");
        broken
            .healing
            .iter()
            .for_each(|step| println!("        {step:?}"));
    }
    for what in &checked.missing {
        println!("    never: {what}");
    }
    checked.broken.is_none() && checked.missing.is_empty()
}

fn row(scope: &Scope, checked: &Checked) -> String {
    let Checked {
        states,
        steps,
        depth,
        took,
        ..
    } = checked;
    let Scope {
        name,
        sites,
        batches,
        left,
        ..
    } = scope;
    let seconds = took.as_secs();
    format!(
        "{{\"scope\":\"{name}\",\"ledgers\":{sites},\"batches\":{batches},\
         \"connections\":{},\"losses\":{},\"agent_crashes\":{},\"site_crashes\":{},\
         \"failed_appends\":{},\"sheds\":{},\"states\":{states},\"steps\":{steps},\
         \"depth\":{depth},\"seconds\":{seconds},\"broken\":{}}}",
        left.dials,
        left.losses,
        left.agent_crashes,
        left.site_crashes,
        left.failed_appends,
        left.sheds,
        u64::from(checked.broken.is_some())
    )
}
