//! What others rely on: formats that stay as they are, and decoders that take anything.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod batch;
mod counting;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
