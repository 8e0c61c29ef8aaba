//! Flipped bits, failing syncs, recycled segments, and arbitrary bytes.
