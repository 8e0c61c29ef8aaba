//! What sealed readings wait for while the spool takes none, in words for people.

use tributary_journal::LogError;

/// What sealed readings wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// Room within the quota.
    Quota,
    /// Room on the disk.
    Space,
    /// A disk that fails.
    Disk,
}

impl Waits {
    /// What this error has them wait for.
    pub fn of(error: &LogError) -> Self {
        match error {
            LogError::Full { .. } => Self::Quota,
            LogError::NoSpace { .. } => Self::Space,
            _ => Self::Disk,
        }
    }

    /// Why nothing is acknowledged once the queues are full.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nothing => "sealing is behind: nothing more is acknowledged until it catches up",
            Self::Quota => {
                "sealed readings wait for room in the spool: its quota is used up, and its policy \
                 is to block"
            }
            Self::Space => "sealed readings wait for room on the disk: it is full",
            Self::Disk => "sealed readings wait for the disk: it fails",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_what_is_waited_for() {
        let dir = std::path::PathBuf::from("/spool");
        let quota = LogError::Full {
            dir: dir.clone(),
            quota_bytes: 1,
            held_bytes: 1,
        };
        let space = LogError::NoSpace {
            dir: dir.clone(),
            reserve_bytes: 1,
        };
        let disk = LogError::Io {
            doing: "writing",
            path: dir,
            source: std::io::ErrorKind::Other.into(),
        };
        for (error, waits, word) in [
            (quota, Waits::Quota, "its quota is used up"),
            (space, Waits::Space, "it is full"),
            (disk, Waits::Disk, "it fails"),
        ] {
            assert_eq!(Waits::of(&error), waits);
            assert!(waits.words().contains(word), "{}", waits.words());
        }
    }
}
