//! Smaller plans that fail all the same: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input", 2002) over faults, then sizes and times.

use super::{Fault, Plan};
use crate::limits::SHRINK_RUNS_MAX;
use tributary_journal::sim_disk::After;

/// The smallest plan that was found for which `fails` still holds, as it does for `plan`.
pub fn shrink(plan: &Plan, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut search = Search {
        fails,
        left: SHRINK_RUNS_MAX,
    };
    let mut best = plan.clone();
    loop {
        let before = best.clone();
        search.faults(&mut best);
        search.sizes(&mut best);
        search.times(&mut best);
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
    fn try_with(&mut self, best: &mut Plan, change: impl FnOnce(&mut Plan)) -> bool {
        let mut smaller = best.clone();
        change(&mut smaller);
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
    fn faults(&mut self, best: &mut Plan) {
        let mut part = best.faults.len().max(1);
        loop {
            let mut at = 0;
            while at < best.faults.len() {
                let end = (at + part).min(best.faults.len());
                if !self.try_with(best, |plan| drop(plan.faults.drain(at..end))) {
                    at += part;
                }
            }
            if part == 1 {
                return;
            }
            part /= 2;
        }
    }

    fn sizes(&mut self, best: &mut Plan) {
        while best.shape.agents > 1 && self.try_with(best, |plan| plan.shape.agents -= 1) {}
        let fewer = |plan: &mut Plan| plan.shape.devices -= 1;
        while best.shape.devices > 1 && self.try_with(best, fewer) {}
        for step in [2, 4, 8, 16] {
            let less = |plan: &mut Plan| {
                let made = plan.shape.made;
                plan.shape.made = made - made / step;
                let messages = plan.shape.messages;
                plan.shape.messages = messages - messages / step;
            };
            while self.try_with(best, less) {}
        }
    }

    fn times(&mut self, best: &mut Plan) {
        for place in 0..best.faults.len() {
            while self.try_with(best, |plan| shorten(&mut plan.faults[place].1)) {}
        }
    }
}

/// The fault with half the length, if it has one.
fn shorten(fault: &mut Fault) {
    match fault {
        Fault::Stall { us, .. }
        | Fault::Refuse { us, .. }
        | Fault::Full { us, .. }
        | Fault::Slow { us }
        | Fault::StorePower { down_us: us, .. }
        | Fault::GapsDown { down_us: us, .. }
            if *us > 1_000 =>
        {
            *us /= 2;
        }
        Fault::Down { after, down_us, .. } => match after {
            _ if *down_us > 1_000 => *down_us /= 2,
            After::Operations(count) | After::Syncs(count) | After::Renames(count)
                if *count > 1 =>
            {
                *count -= 1;
            }
            _ => {}
        },
        Fault::FailSyncs { times, .. }
        | Fault::FailDirSyncs { times, .. }
        | Fault::FailWrites { times, .. }
        | Fault::FailGaps { times, .. }
        | Fault::StoreRefuses { times }
        | Fault::StoreUnheard { times }
        | Fault::Double { batches: times, .. }
            if *times > 1 =>
        {
            *times -= 1;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Profile;

    #[test]
    fn what_does_not_matter_goes_and_what_does_stays() {
        let needs = |plan: &Plan| {
            let down = plan.has(|fault| matches!(fault, Fault::Down { .. }));
            let unheard = plan.has(|fault| matches!(fault, Fault::StoreUnheard { times: 2.. }));
            down && unheard && plan.shape.messages >= 17
        };
        let mut shrunk = 0;
        for seed in 0..2_000 {
            let plan = Plan::draw_as(seed, Profile::Mixed);
            if !needs(&plan) {
                continue;
            }
            let small = shrink(&plan, |plan| needs(plan));
            assert_eq!(small.faults.len(), 2, "{small}");
            let size = (small.shape.messages, small.shape.agents);
            assert!((17..=18).contains(&size.0) && size.1 == 1, "{small}");
            assert!(
                small.has(|fault| matches!(fault, Fault::StoreUnheard { times: 2 })),
                "{small}"
            );
            shrunk += 1;
        }
        assert!(shrunk > 20, "only {shrunk}");
    }
}
