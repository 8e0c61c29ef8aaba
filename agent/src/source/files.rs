//! How many files the process may have open: each connection is one. Opens none.

use crate::limits::{CONNECTIONS_FEW, CONNECTIONS_MAX, OTHER_FILES};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and warns when that is too few for all
/// connections that the listener would hold. Once, at the start, before the listener is bound.
pub fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let wanted = Rlimit {
            current: before.maximum,
            maximum: before.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    let connections = connections_max();
    if connections < CONNECTIONS_FEW {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let wanted = CONNECTIONS_MAX as u64 + OTHER_FILES;
        tracing::warn!(
            open_files,
            wanted,
            connections,
            "few open files: connections beyond that are refused; raise `LimitNOFILE` of the \
             service, or `ulimit -n`"
        );
    }
}

/// How many connections the process has files for, as its limit stands now.
pub(super) fn connections_max() -> usize {
    connections_of(getrlimit(Resource::Nofile).current)
}

/// Of few files, half are for connections; `None` is no limit.
fn connections_of(open_files: Option<u64>) -> usize {
    let Some(files) = open_files else {
        return CONNECTIONS_MAX;
    };
    let left = files.saturating_sub(OTHER_FILES).max(files / 2);
    usize::try_from(left).map_or(CONNECTIONS_MAX, |left| left.min(CONNECTIONS_MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        for (files, connections) in [
            (Some(0), 0),
            (Some(64), 32),
            (Some(512), 256),
            (Some(1_024), 768),
            (Some(20_255), 19_999),
            (Some(20_256), 20_000),
            (Some(u64::MAX), 20_000),
            (None, 20_000),
        ] {
            assert_eq!(connections_of(files), connections, "{files:?}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        raise_open_files();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((now.current, now.maximum), (hard, hard));
    }
}
