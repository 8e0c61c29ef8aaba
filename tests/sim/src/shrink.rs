//! Smaller plans that fail all the same: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input", 2002) over faults, then agents, aggregators, batches and
//! times.

use crate::limits::{BATCHES_MIN, SHRINK_RUNS_MAX};
use crate::plan::{Fault, Plan};

/// The smallest plan that was found for which `fails` still holds, as it does for `plan`.
pub fn shrink(plan: &Plan, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search {
        fails,
        left: SHRINK_RUNS_MAX,
    };
    let mut best = plan.clone();
    loop {
        let before = best.clone();
        best = search.faults(best);
        best = search.sizes(best);
        best = search.times(best);
        if best == before || search.left == 0 {
            return best;
        }
    }
}

struct Search<F> {
    fails: F,
    left: u32,
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Takes the smaller plan if it fails as well.
    fn try_with(&mut self, best: &mut Plan, smaller: Plan) -> bool {
        if self.left == 0 || smaller == *best {
            return false;
        }
        self.left -= 1;
        let fails = (self.fails)(&smaller);
        if fails {
            *best = smaller;
        }
        fails
    }

    /// Leaves out whole parts of the faults, then ever smaller ones.
    fn faults(&mut self, mut best: Plan) -> Plan {
        let mut part = best.faults.len().max(1);
        loop {
            let mut at = 0;
            while at < best.faults.len() {
                let mut smaller = best.clone();
                let end = (at + part).min(smaller.faults.len());
                smaller.faults.drain(at..end);
                if !self.try_with(&mut best, smaller) {
                    at += part;
                }
            }
            if part == 1 {
                return best;
            }
            part /= 2;
        }
    }

    fn sizes(&mut self, mut best: Plan) -> Plan {
        while best.shape.agents > 1 {
            let mut smaller = best.clone();
            smaller.shape.agents -= 1;
            if !self.try_with(&mut best, smaller) {
                break;
            }
        }
        while best.shape.sites > 1 {
            let mut smaller = best.clone();
            smaller.shape.sites -= 1;
            if !self.try_with(&mut best, smaller) {
                break;
            }
        }
        for step in [2, 4, 8, 16] {
            loop {
                let mut smaller = best.clone();
                let batches = smaller.shape.batches;
                smaller.shape.batches = (batches - batches / step).max(BATCHES_MIN);
                if !self.try_with(&mut best, smaller) {
                    break;
                }
            }
        }
        best
    }

    fn times(&mut self, mut best: Plan) -> Plan {
        for place in 0..best.faults.len() {
            while let Some(smaller) = shorter(&best, place) {
                if !self.try_with(&mut best, smaller) {
                    break;
                }
            }
        }
        best
    }
}

/// The plan with one fault of half the length; `None` when it has no length, or a short one.
fn shorter(plan: &Plan, place: usize) -> Option<Plan> {
    let mut smaller = plan.clone();
    let (_, fault) = smaller.faults.get_mut(place)?;
    match fault {
        Fault::Stall { us, .. }
        | Fault::Refuse { us, .. }
        | Fault::SlowSite { us, .. }
        | Fault::Part { us, .. }
        | Fault::LoseJournal { down_us: us, .. }
        | Fault::CrashAgent { down_us: us, .. }
        | Fault::CrashSite { down_us: us, .. }
            if *us > 1_000 =>
        {
            *us /= 2;
        }
        Fault::Flap { times, .. } | Fault::FailAppends { times, .. } if *times > 1 => *times -= 1,
        Fault::Shed { numbers, .. } if *numbers > 1 => *numbers -= 1,
        Fault::Double { batches, .. } if *batches > 1 => *batches -= 1,
        Fault::LoseTail { frames, .. } if *frames > 1 => *frames -= 1,
        _ => return None,
    }
    Some(smaller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Profile;

    #[test]
    fn what_does_not_matter_goes_and_what_does_stays() {
        let needs = |plan: &Plan| {
            let cut = plan.has(|fault| matches!(fault, Fault::Cut { agent: 0 }));
            let shed = plan.has(|fault| matches!(fault, Fault::Shed { numbers: 3.., .. }));
            cut && shed && plan.shape.batches >= 17
        };
        let mut shrunk = 0;
        for seed in 0..2_000 {
            let plan = Plan::draw_as(seed, Profile::Mixed);
            if !needs(&plan) {
                continue;
            }
            let small = shrink(&plan, |plan| needs(plan));
            assert_eq!(small.faults.len(), 2, "{small}");
            assert_eq!(
                (small.shape.batches, small.shape.agents),
                (17, 1),
                "{small}"
            );
            assert!(
                small.has(|fault| matches!(fault, Fault::Shed { numbers: 3, .. })),
                "{small}"
            );
            shrunk += 1;
        }
        assert!(shrunk > 20, "only {shrunk}");
    }
}
