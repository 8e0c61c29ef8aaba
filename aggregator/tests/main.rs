//! The aggregator against crashes, repeats and abusive peers: one binary, a module a fear.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod audit;
mod ingest;
mod keeper;
mod keeper_lake;
mod keeper_turns;
mod keeper_wedges;
mod lake;
mod lake_aggregates;
mod lake_alerts;
mod lake_intent;
mod lake_journal;
mod lake_plan;
mod lake_steps;
mod made;
mod pki;
mod postgres;
mod readmit;
mod restore;
mod sealed;
mod services;
mod shed;
mod talk;
mod twins;
mod uplink;
