//! What must hold in every state, by the numbers that the oracle of `tests/sim` gives its
//! invariants; those left out are about what a model has not: content, sinks, processes.

/// What the model holds the product to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// What left the spool is in a journal, as it was sealed or declared.
    I1,
    /// A gap takes no number that it does not stand for.
    I3,
    /// A journal has each number once, as data or as gap.
    I5,
    /// What the ledger holds, `Welcome` names or an acknowledgement says, is in the journal; and
    /// what is in the journal the ledger holds.
    I6,
    /// Hash sums are those of the journal.
    I7,
    /// Who waits is answered. (That all drains is looked at by itself: see `heal`.)
    I8,
    /// No more is under way than was agreed.
    I10,
    /// An honest agent is never refused, and neither end says what the other does not allow.
    I11,
    /// A batch that two journals have is marked in one of them.
    I13,
    /// Nothing panics.
    I15,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::I1,
        Self::I3,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I10,
        Self::I11,
        Self::I13,
        Self::I15,
    ];

    /// The rule in words, which is the name of its property.
    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1: what left the spool is in a journal, as data or declared",
            Self::I3 => "I3: a gap takes only numbers that it stands for",
            Self::I5 => "I5: a journal has each number once, as data or as gap",
            Self::I6 => "I6: what is held or acknowledged is in the journal, and the reverse",
            Self::I7 => "I7: hash sums are those of the journal",
            Self::I8 => "I8: who waits is answered",
            Self::I10 => "I10: no more is under way than was agreed",
            Self::I11 => "I11: an honest agent is never refused",
            Self::I13 => "I13: a batch in two journals is marked in one of them",
            Self::I15 => "I15: nothing panics",
        }
    }
}
