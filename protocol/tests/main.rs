//! What others rely on: formats that stay as they are, and decoders that take anything.
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod batch;
// Counting what is allocated takes an allocator.
#[allow(unsafe_code)]
mod counting;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
