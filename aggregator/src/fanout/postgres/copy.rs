//! Rows as PostgreSQL's binary COPY format takes them
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, Binary Format). Pure.

use bytes::{BufMut, Bytes, BytesMut};

/// Microseconds between 1970 and 2000, where PostgreSQL's times begin.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The first time that PostgreSQL has (4714 BC), in its own microseconds.
const TIME_MIN: i64 = -211_813_488_000_000_000;
/// One past the last one (294276 AD).
const TIME_END: i64 = 9_223_371_331_200_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Bytes of one message on the wire, about.
const BLOCK_BYTES: usize = 256 * 1024;

/// A time that PostgreSQL does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the time {0} (microseconds since 1970) is outside of what PostgreSQL has")]
pub struct NoTime(pub i64);

/// Rows of one table, encoded.
#[derive(Debug)]
pub struct Tuples {
    full: Vec<Bytes>,
    open: BytesMut,
    rows: usize,
}

impl Default for Tuples {
    fn default() -> Self {
        let mut open = BytesMut::with_capacity(BLOCK_BYTES);
        open.put_slice(SIGNATURE);
        // No flags, no extension of the header.
        open.put_i32(0);
        open.put_i32(0);
        Self {
            full: Vec::new(),
            open,
            rows: 0,
        }
    }
}

impl Tuples {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Begins a row of so many fields, which are put next, in order.
    pub fn begin(&mut self, fields: i16) {
        if self.open.len() >= BLOCK_BYTES {
            self.full.push(self.open.split().freeze());
            self.open.reserve(BLOCK_BYTES);
        }
        self.rows += 1;
        self.open.put_i16(fields);
    }

    /// No value.
    pub fn null(&mut self) {
        self.open.put_i32(-1);
    }

    /// `bigint`
    pub fn i64(&mut self, value: i64) {
        self.open.put_i32(8);
        self.open.put_i64(value);
    }

    /// `integer`
    pub fn i32(&mut self, value: i32) {
        self.open.put_i32(4);
        self.open.put_i32(value);
    }

    /// `smallint`
    pub fn i16(&mut self, value: i16) {
        self.open.put_i32(2);
        self.open.put_i16(value);
    }

    /// `double precision`, to the bit.
    pub fn f64(&mut self, value: f64) {
        self.open.put_i32(8);
        self.open.put_u64(value.to_bits());
    }

    /// `boolean`
    pub fn bool(&mut self, value: bool) {
        self.open.put_i32(1);
        self.open.put_u8(u8::from(value));
    }

    /// `bytea`, or a `text` in UTF-8. Longer than 2 GiB nothing here is.
    pub fn bytes(&mut self, value: &[u8]) {
        self.open
            .put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.open.put_slice(value);
    }

    /// `text`
    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// `jsonb`
    pub fn json(&mut self, value: &str) {
        let len = i32::try_from(value.len()).unwrap_or(i32::MAX - 1);
        self.open.put_i32(len + 1);
        self.open.put_u8(1);
        self.open.put_slice(value.as_bytes());
    }

    /// `timestamptz`, of microseconds since 1970; whatever it has no room for is an error, for as
    /// `infinity` it would be another time.
    ///
    /// # Errors
    /// When PostgreSQL has no such time; the row is not whole then.
    pub fn time(&mut self, us: i64) -> Result<(), NoTime> {
        let time = us.checked_sub(EPOCH_US).ok_or(NoTime(us))?;
        if !(TIME_MIN..TIME_END).contains(&time) {
            return Err(NoTime(us));
        }
        self.i64(time);
        Ok(())
    }

    /// All of it, in blocks.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.open.put_i16(-1);
        self.full.push(self.open.freeze());
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_postgresql_has_and_nothing_else() {
        let mut tuples = Tuples::default();
        for bad in [i64::MIN, TIME_MIN + EPOCH_US - 1] {
            assert_eq!(tuples.time(bad), Err(NoTime(bad)));
        }
        for good in [0, EPOCH_US, -EPOCH_US, TIME_MIN + EPOCH_US, i64::MAX] {
            assert_eq!(tuples.time(good), Ok(()));
        }
    }

    #[test]
    fn rows_go_in_blocks_and_end_with_the_trailer() {
        let mut tuples = Tuples::default();
        let text = "x".repeat(1_000);
        for _ in 0..1_000 {
            tuples.begin(1);
            tuples.text(&text);
        }
        let blocks = tuples.finish();
        let bytes: usize = blocks.iter().map(Bytes::len).sum();
        assert_eq!(bytes, 19 + 1_000 * (2 + 4 + 1_000) + 2);
        assert!(blocks.len() > 3);
        assert!(
            blocks
                .last()
                .is_some_and(|last| last.ends_with(&[0xff, 0xff]))
        );
    }
}
