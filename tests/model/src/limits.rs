//! Every bound of the model, in one place. This file holds no behaviour.

/// Aggregators of one scope, at most.
pub const SITES_MAX: usize = 2;
/// Batches that the agent of a scope seals, at most: what is more than a few is never exhausted.
pub const BATCHES_MAX: u64 = 5;
/// Numbers that one gap stands for, at most.
pub const GAP_NUMBERS: u64 = 2;
/// Connections of which anything may still arrive, at most: the present one, and older ones.
pub const LINKS_MAX: usize = 3;
/// Steps in which all must drain once nothing breaks any more.
pub const HEAL_STEPS_MAX: usize = 400;
/// Threads that check, at most.
pub const THREADS_MAX: usize = 64;

const _: () = assert!(GAP_NUMBERS <= BATCHES_MAX);
const _: () = assert!(LINKS_MAX >= 2);
