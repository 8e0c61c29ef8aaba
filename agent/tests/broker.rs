//! The subscription to a broker: against a broker that the test scripts byte by byte, for what no
//! good broker does, and against a real Mosquitto. Each fault of the client library is shown twice:
//! `plain` has it, with the library as its documentation uses it; `scripted` and `real` do not.

mod alerts;
mod fake;
mod harness;
mod mosquitto;
mod plain;
mod real;
mod scripted;
