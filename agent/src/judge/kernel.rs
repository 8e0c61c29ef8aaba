//! What the kernel says of the gateway's clock, as records of the log tell it. It asks nobody.

use bytes::{Buf, BufMut};

/// The answer, and in which boot it was given: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KernelClock {
    /// Whether it calls the clock synchronised; `None` where it can't be asked.
    pub synchronised: Option<bool>,
    /// Names the boot; 0 where that is not known.
    pub boot: u64,
}

impl KernelClock {
    /// What holds once this was told, too: a clock that was synchronised in a boot stays right in
    /// it, also when nobody corrects it any more.
    pub fn told(self, next: Self) -> Self {
        let same_boot = self.boot == next.boot && next.boot != 0;
        let was = same_boot && self.synchronised == Some(true);
        Self {
            synchronised: match was {
                true => Some(true),
                false => next.synchronised,
            },
            ..next
        }
    }

    /// Appends its bytes: 0 it can't be asked, 1 not synchronised, 2 synchronised (1 byte), then
    /// the boot (8).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(match self.synchronised {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        });
        out.put_u64_le(self.boot);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let synchronised = match input.try_get_u8().ok()? {
            0 => None,
            1 => Some(false),
            2 => Some(true),
            _ => return None,
        };
        let boot = input.try_get_u64_le().ok()?;
        Some(Self { synchronised, boot })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn once_synchronised_it_is_in_that_boot() {
        let said = |synchronised, boot| KernelClock { synchronised, boot };
        let (yes, no) = (Some(true), Some(false));
        for (before, next, holds) in [
            ((None, 0), (no, 7), no),
            ((no, 7), (yes, 7), yes),
            ((yes, 7), (no, 7), yes),
            ((yes, 7), (None, 7), yes),
            ((yes, 7), (no, 8), no),
            ((yes, 0), (no, 0), no),
            ((no, 7), (None, 7), None),
        ] {
            let next = said(next.0, next.1);
            let told = said(before.0, before.1).told(next);
            assert_eq!(told, said(holds, next.boot), "{before:?} {next:?}");
            let mut bytes = Vec::new();
            told.write(&mut bytes);
            assert_eq!(KernelClock::read(&mut bytes.as_slice()).unwrap(), told);
            assert_eq!(KernelClock::read(&mut &bytes[..8]), None);
        }
    }
}
