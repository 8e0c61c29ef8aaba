//! Integers as symbols: one token byte each, and beside it the bits that no model would shorten.
//!
//! Tokens go under zstd, whose Huffman stage does well on a small alphabet; bits are kept apart, as
//! they only spoil its statistics. Nothing here knows what an integer means.

/// Integers below this are their own token.
const DIRECT: u64 = 16;
/// Bits of the least integer that is split.
const SPLIT_BITS: u32 = DIRECT.trailing_zeros() + 1;
/// Least token that is none: those of 64-bit integers are the last.
const TOKENS: u64 = DIRECT + 2 * (65 - SPLIT_BITS as u64);

/// What is wrong with a body, and in which column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flaw {
    /// The column that was being read.
    pub column: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A flaw in `column`.
pub(super) fn flaw<T>(column: &'static str, problem: &'static str) -> Result<T, Flaw> {
    Err(Flaw { column, problem })
}

/// Signed to unsigned, small to small.
pub(super) fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(u: u64) -> i64 {
    ((u >> 1) as i64) ^ -((u & 1) as i64)
}

/// Bits that a residual takes, roughly: what choices are made by.
pub(super) fn cost(v: i64) -> u32 {
    64 - zigzag(v).leading_zeros()
}

fn low(bits: u32) -> u64 {
    (1u64 << bits) - 1
}

/// Takes integers in; gives tokens and bits.
#[derive(Default)]
pub(super) struct SymbolWriter {
    /// Tokens, in the order in which they were put.
    pub tokens: Vec<u8>,
    bits: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl SymbolWriter {
    /// Forgets everything, and keeps the room.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.bits.clear();
        self.pending = 0;
        self.pending_bits = 0;
    }

    /// Adds an integer.
    #[inline]
    pub fn put(&mut self, u: u64) {
        if u < DIRECT {
            self.tokens.push(u as u8);
            return;
        }
        let length = 64 - u.leading_zeros();
        let rest = length - 2;
        let class = u64::from(length - SPLIT_BITS) * 2 + ((u >> rest) & 1);
        self.tokens.push((DIRECT + class) as u8);
        self.put_bits(u & low(rest), rest);
    }

    /// Adds a signed integer.
    #[inline]
    pub fn put_signed(&mut self, v: i64) {
        self.put(zigzag(v));
    }

    /// Adds the low `count` bits of `v`, at most 64, without a token; the others must be 0.
    #[inline]
    pub fn put_bits(&mut self, v: u64, count: u32) {
        if count > 32 {
            self.put_bits(v & low(32), 32);
            self.put_bits(v >> 32, count - 32);
            return;
        }
        self.pending |= v << self.pending_bits;
        self.pending_bits += count;
        if self.pending_bits >= 32 {
            self.bits
                .extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// The bits so far, filled up with zeros to whole bytes.
    pub fn finish_bits(&mut self) -> &[u8] {
        let bytes = self.pending_bits.div_ceil(8) as usize;
        let last = self.pending.to_le_bytes();
        self.bits.extend(last.iter().take(bytes));
        self.pending = 0;
        self.pending_bits = 0;
        &self.bits
    }
}

/// Gives integers back from tokens and bits. Total: every read may fail, none may panic.
pub(super) struct SymbolReader<'a> {
    tokens: &'a [u8],
    bits: &'a [u8],
    pending: u64,
    pending_bits: u32,
    /// The column that is being read, for errors.
    pub column: &'static str,
}

impl<'a> SymbolReader<'a> {
    /// A reader of these tokens and bits.
    pub fn new(tokens: &'a [u8], bits: &'a [u8]) -> Self {
        Self {
            tokens,
            bits,
            pending: 0,
            pending_bits: 0,
            column: "head",
        }
    }

    /// A flaw in the column that is being read.
    #[cold]
    pub fn flaw<T>(&self, problem: &'static str) -> Result<T, Flaw> {
        flaw(self.column, problem)
    }

    /// The next token as it is.
    #[inline]
    pub fn token(&mut self) -> Result<u8, Flaw> {
        let Some((first, rest)) = self.tokens.split_first() else {
            return self.flaw("ends too early");
        };
        self.tokens = rest;
        Ok(*first)
    }

    /// The next `count` tokens as they are.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let Some((taken, rest)) = self.tokens.split_at_checked(count) else {
            return self.flaw("ends too early");
        };
        self.tokens = rest;
        Ok(taken)
    }

    /// The next integer.
    #[inline]
    pub fn get(&mut self) -> Result<u64, Flaw> {
        let token = u64::from(self.token()?);
        if token < DIRECT {
            return Ok(token);
        }
        if token >= TOKENS {
            return self.flaw("holds a token that means nothing");
        }
        let class = token - DIRECT;
        let rest = (class / 2) as u32 + SPLIT_BITS - 2;
        Ok(((2 | (class & 1)) << rest) | self.bits(rest)?)
    }

    /// The next signed integer.
    #[inline]
    pub fn next_signed(&mut self) -> Result<i64, Flaw> {
        Ok(unzigzag(self.get()?))
    }

    /// The next integer, which must be at most `max`.
    #[inline]
    pub fn next_max(&mut self, max: usize) -> Result<usize, Flaw> {
        let u = self.get()?;
        if u > max as u64 {
            return self.flaw("holds a number that is too great");
        }
        Ok(u as usize)
    }

    /// The next `count` bits, at most 64.
    #[inline]
    pub fn bits(&mut self, count: u32) -> Result<u64, Flaw> {
        if count > 32 {
            let lower = self.bits(32)?;
            return Ok(lower | (self.bits(count - 32)? << 32));
        }
        if self.pending_bits < count {
            self.refill(count)?;
        }
        let v = self.pending & low(count);
        self.pending >>= count;
        self.pending_bits -= count;
        Ok(v)
    }

    #[inline]
    fn refill(&mut self, count: u32) -> Result<(), Flaw> {
        if let Some((four, rest)) = self.bits.split_first_chunk::<4>() {
            self.pending |= u64::from(u32::from_le_bytes(*four)) << self.pending_bits;
            self.pending_bits += 32;
            self.bits = rest;
            return Ok(());
        }
        while let Some((byte, rest)) = self.bits.split_first() {
            self.pending |= u64::from(*byte) << self.pending_bits;
            self.pending_bits += 8;
            self.bits = rest;
        }
        if self.pending_bits < count {
            return self.flaw("has too few bits");
        }
        Ok(())
    }

    /// Checks that everything was read, and that the bits were filled up with zeros.
    pub fn finish(self) -> Result<(), Flaw> {
        if !self.tokens.is_empty() || !self.bits.is_empty() {
            return flaw("body", "goes on after its last column");
        }
        if self.pending_bits >= 8 || self.pending != 0 {
            return flaw("body", "has bits that belong to nothing");
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edges() -> Vec<u64> {
        let mut all = vec![0, u64::MAX];
        all.extend((0..64).flat_map(|bit| [1 << bit, (1u64 << bit).wrapping_sub(1)]));
        all
    }

    fn round_trip(numbers: &[u64]) {
        let mut writer = SymbolWriter::default();
        numbers.iter().for_each(|u| writer.put(*u));
        let bits = writer.finish_bits().to_vec();
        let mut reader = SymbolReader::new(&writer.tokens, &bits);
        for u in numbers {
            assert_eq!(reader.get().unwrap(), *u);
        }
        reader.finish().unwrap();
    }

    #[test]
    fn every_length_comes_back() {
        round_trip(&edges());
        assert_eq!(TOKENS, 136);
    }

    #[test]
    fn what_is_left_over_is_refused() {
        let mut writer = SymbolWriter::default();
        writer.put(1000);
        let bits = writer.finish_bits().to_vec();
        let mut extra = bits.clone();
        extra.push(0);
        let mut reader = SymbolReader::new(&writer.tokens, &extra);
        assert_eq!(reader.get().unwrap(), 1000);
        assert!(reader.finish().is_err());
        assert!(SymbolReader::new(&[136], &bits).get().is_err());
        assert!(SymbolReader::new(&[135], &bits).get().is_err());
        assert!(SymbolReader::new(&[], &bits).get().is_err());
    }

    proptest! {
        #[test]
        fn any_numbers_come_back(numbers in proptest::collection::vec(any::<u64>(), 0..200)) {
            round_trip(&numbers);
        }

        #[test]
        fn any_signed_number_comes_back(v in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(v)), v);
        }
    }
}
