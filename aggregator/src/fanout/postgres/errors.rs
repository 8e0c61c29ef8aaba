//! What PostgreSQL said, and what is to be made of it.

use super::super::sink::SinkError;
use std::error::Error as _;
use tokio_postgres::Error;
use tokio_postgres::error::DbError;

/// What to make of an error of the client.
pub fn judge(error: &Error) -> SinkError {
    match error.as_db_error() {
        Some(said) => of_server(said),
        None => {
            let cause = error
                .source()
                .map_or(String::new(), |cause| format!(": {cause}"));
            let text = format!("PostgreSQL does not answer: {error}{cause}");
            match error.is_closed() || cause.is_empty() || !cause.contains("certificate") {
                true => SinkError::Again(text),
                false => SinkError::Stuck(text),
            }
        }
    }
}

/// By class of SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): what the data is to blame
/// for, what somebody has to mend, and what passes.
fn of_server(said: &DbError) -> SinkError {
    let code = said.code().code();
    let mut text = format!("PostgreSQL said {code}: {}", said.message());
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    let class = code.get(..2).unwrap_or_default();
    match (class, code) {
        // Data exception, integrity constraint, program limit, JSON that is none for it.
        ("22" | "23" | "54", _) => SinkError::Refused(text),
        ("28", _) => SinkError::Stuck(format!(
            "{text}; set user and password of the sink, and allow it in pg_hba.conf"
        )),
        (_, "42501") => SinkError::Stuck(format!(
            "{text}; grant the sink's user what docs/sinks.md lists"
        )),
        (_, "42P01" | "42703" | "3F000") => SinkError::Stuck(format!(
            "{text}; a table of the sink is not as it was made: put it back from a copy, or drop \
             the schema tributary: then the sink begins anew with what the journal has"
        )),
        (_, "3D000") => SinkError::Stuck(format!("{text}; create the database")),
        (_, "25006") => SinkError::Again(format!("{text}; the server is a standby")),
        (_, "53100") => SinkError::Again(format!("{text}; make room on the server's disk")),
        ("42" | "0A" | "3B", _) => SinkError::Stuck(text),
        _ => SinkError::Again(text),
    }
}
