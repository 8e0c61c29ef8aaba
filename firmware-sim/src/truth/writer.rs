//! Writes a truth ledger: one thread, buffered, bounded.
//!
//! Senders hand over events in batches and wait when the writer is behind, so that a long run
//! holds no more than its queue in memory. The writer knows nothing of MQTT.

use super::{Event, Header, TruthError, codec};
use crate::limits::{
    TEXT_BYTES_MAX, TRUTH_BLOCK_BYTES_TARGET, TRUTH_EVENTS_TARGET, TRUTH_QUEUE_LEN,
};
use crate::reading::Series;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// An open truth ledger. Dropping it without [`TruthWriter::finish`] leaves a ledger without an
/// end, as a killed run does.
#[derive(Debug)]
pub struct TruthWriter {
    path: PathBuf,
    file: BufWriter<File>,
    block: Vec<u8>,
    last_us: i64,
    published: u64,
    acknowledged: u64,
}

impl TruthWriter {
    /// Creates the file (over an older one) and writes its header.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(path: &Path, header: &Header) -> Result<Self, TruthError> {
        let file = File::create(path).map_err(|error| TruthError::Io {
            path: path.to_owned(),
            what: "create",
            error,
        })?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(2 * TRUTH_BLOCK_BYTES_TARGET, file),
            block: Vec::with_capacity(TRUTH_BLOCK_BYTES_TARGET + 4_096),
            last_us: 0,
            published: 0,
            acknowledged: 0,
        };
        writer.write_all(&codec::encode_header(header))?;
        Ok(writer)
    }

    /// Names the series that readings refer to, in order of their numbers.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn name(&mut self, series: &[Series]) -> Result<(), TruthError> {
        for (number, one) in (0u32..).zip(series) {
            let (device, metric) = (one.device.clone(), one.metric.clone());
            self.append(&Event::Series {
                series: number,
                device,
                metric,
            })?;
        }
        Ok(())
    }

    /// Appends one event.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn append(&mut self, event: &Event) -> Result<(), TruthError> {
        match event {
            Event::Published(reading) => {
                let text_bytes = match &reading.value {
                    crate::reading::Value::Text(text) => text.len(),
                    _ => 0,
                };
                debug_assert!(text_bytes <= TEXT_BYTES_MAX, "sources bound their texts");
                self.published += 1;
            }
            Event::Acknowledged { .. } => self.acknowledged += 1,
            _ => {}
        }
        codec::put_event(&mut self.block, event, &mut self.last_us);
        if self.block.len() >= TRUTH_BLOCK_BYTES_TARGET {
            self.close_block()?;
        }
        Ok(())
    }

    /// Appends the end, flushes and fsyncs.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(mut self) -> Result<(), TruthError> {
        let (published, acknowledged) = (self.published, self.acknowledged);
        self.append(&Event::End {
            published,
            acknowledged,
        })?;
        self.close_block()?;
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| self.failed("flush and fsync", error))
    }

    /// Moves the writer to a thread of its own; the handle gives its end, which comes when all
    /// senders are gone. A prompt one has each event in its file as soon as it can.
    pub fn spawn(mut self, prompt: bool) -> (TruthSender, JoinHandle<Result<(), TruthError>>) {
        let (sender, mut batches) = mpsc::channel::<Vec<Event>>(TRUTH_QUEUE_LEN);
        let writing = tokio::task::spawn_blocking(move || {
            while let Some(batch) = batches.blocking_recv() {
                batch.iter().try_for_each(|event| self.append(event))?;
                if prompt {
                    self.close_block()?;
                    let flushed = self.file.flush();
                    flushed.map_err(|error| self.failed("flush", error))?;
                }
            }
            self.finish()
        });
        let sender = TruthSender {
            sender: Some(sender),
            events_target: if prompt { 1 } else { TRUTH_EVENTS_TARGET },
        };
        (sender, writing)
    }

    fn close_block(&mut self) -> Result<(), TruthError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let len = u32::try_from(block.len()).expect("a block is closed long before 4 GiB");
        self.write_all(&len.to_le_bytes())?;
        self.write_all(&codec::block_crc(&block).to_le_bytes())?;
        self.write_all(&block)?;
        self.block = block;
        self.block.clear();
        self.last_us = 0;
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), TruthError> {
        self.file
            .write_all(bytes)
            .map_err(|error| self.failed("write", error))
    }

    fn failed(&self, what: &'static str, error: std::io::Error) -> TruthError {
        TruthError::Io {
            path: self.path.clone(),
            what,
            error,
        }
    }
}

/// The way to the writer's thread; without a ledger it takes everything and keeps nothing.
#[derive(Clone, Debug)]
pub struct TruthSender {
    sender: Option<mpsc::Sender<Vec<Event>>>,
    events_target: usize,
}

impl TruthSender {
    /// For a run that keeps no truth.
    pub fn nowhere() -> Self {
        Self {
            sender: None,
            events_target: TRUTH_EVENTS_TARGET,
        }
    }

    /// Whether anything is kept.
    pub fn keeps(&self) -> bool {
        self.sender.is_some()
    }

    /// Whether so many events are to be handed over.
    pub fn is_due(&self, events: usize) -> bool {
        events >= self.events_target
    }

    /// Hands over the events, and waits while the writer is behind.
    ///
    /// # Errors
    /// [`TruthError::Gone`] when the writer has failed; its handle says why.
    pub async fn send(&self, events: Vec<Event>) -> Result<(), TruthError> {
        match &self.sender {
            Some(sender) if !events.is_empty() => {
                sender.send(events).await.map_err(|_| TruthError::Gone)
            }
            _ => Ok(()),
        }
    }
}
