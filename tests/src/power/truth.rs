//! What a fleet knew at one moment: its truth ledger, with those readings and acknowledgements
//! alone that its devices had said and heard by then.

use super::wire::Devices;
use std::path::Path;
use tributary_sim::truth::{Event, Header, TruthReader, TruthWriter};

/// The whole ledger of a fleet.
#[derive(Debug)]
pub struct Truth {
    header: Header,
    events: Vec<Event>,
}

/// A series as its events come by.
struct Known {
    topic: String,
    /// The device's numbers of what it published, in order.
    numbers: Vec<u64>,
}

impl Truth {
    /// Reads it.
    ///
    /// # Panics
    /// When it can't be read.
    pub fn read(path: &Path) -> Self {
        let reader = TruthReader::open(path).unwrap();
        let header = reader.header().clone();
        let mut events = Vec::new();
        reader
            .read(|event| {
                events.push(event);
                Ok(())
            })
            .unwrap();
        Self { header, events }
    }

    fn series(&self) -> Vec<Known> {
        let mut series = Vec::new();
        for event in &self.events {
            match event {
                Event::Series { device, metric, .. } => series.push(Known {
                    topic: format!("{device}/{metric}"),
                    numbers: Vec::new(),
                }),
                Event::Published(reading) => {
                    series[reading.series as usize].numbers.push(reading.seq);
                }
                _ => {}
            }
        }
        series
    }

    /// Whether the devices say of this fleet what its ledger says: as many readings of each series,
    /// and the same ones acknowledged.
    pub fn agrees_with(&self, devices: &Devices) -> bool {
        let series = self.series();
        let told = self.events.iter().filter_map(|event| match event {
            Event::Acknowledged { series, seq } => Some((*series as usize, *seq)),
            _ => None,
        });
        let mut told: Vec<(usize, u64)> = told.collect();
        told.sort_unstable();
        let mut heard = Vec::new();
        for (number, one) in series.iter().enumerate() {
            if devices.published(&one.topic) != one.numbers.len() as u64 {
                return false;
            }
            let acknowledged = devices.acknowledged(&one.topic);
            heard.extend(acknowledged.map(|nth| (number, one.numbers[nth as usize])));
        }
        heard.sort_unstable();
        heard == told
    }

    /// Writes to `path` what these devices know. A reading that none has said yet is not in it: a
    /// lake that holds one holds what nobody sent.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write_as_of(&self, devices: &Devices, path: &Path) {
        let all = self.series();
        let mut writer = TruthWriter::create(path, &self.header).unwrap();
        let is_said = |series: u32, seq: u64| {
            let known = &all[series as usize];
            let nth = known.numbers.binary_search(&seq);
            nth.is_ok_and(|nth| (nth as u64) < devices.published(&known.topic))
        };
        for event in &self.events {
            let stays = match event {
                Event::Series { .. } => true,
                Event::Published(reading) => is_said(reading.series, reading.seq),
                Event::Faulty { series, seq, .. } => is_said(*series, *seq),
                Event::Acknowledged { .. } | Event::Refused { .. } | Event::End { .. } => false,
            };
            if stays {
                writer.append(event).unwrap();
            }
        }
        for (series, known) in (0..).zip(&all) {
            for nth in devices.acknowledged(&known.topic) {
                let seq = known.numbers[nth as usize];
                writer.append(&Event::Acknowledged { series, seq }).unwrap();
            }
        }
        writer.finish().unwrap();
    }
}
