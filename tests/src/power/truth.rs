//! What a fleet knew at one moment: its truth ledger, with those acknowledgements alone that it
//! had written down by then.

use std::path::Path;
use tributary_sim::truth::{Event, Header, TruthReader, TruthWriter};

/// The whole ledger of a fleet.
#[derive(Debug)]
pub struct Truth {
    header: Header,
    events: Vec<Event>,
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

    /// Writes to `path` what the fleet knew when its ledger was as long as the beginning at
    /// `begun`; says how many readings were acknowledged. What it published later stays in it: a
    /// lake that holds one of them is not foreign, but from the future, which none can be.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write_as_of(&self, begun: &Path, path: &Path) -> u64 {
        let mut known = 0;
        let count = |_| {
            known += 1;
            Ok(())
        };
        TruthReader::open(begun).unwrap().read(count).unwrap();
        let mut writer = TruthWriter::create(path, &self.header).unwrap();
        let mut acknowledged = 0;
        for (place, event) in self.events.iter().enumerate() {
            match event {
                Event::End { .. } => {}
                Event::Acknowledged { .. } | Event::Refused { .. } if place >= known => {}
                event => {
                    acknowledged += u64::from(matches!(event, Event::Acknowledged { .. }));
                    writer.append(event).unwrap();
                }
            }
        }
        writer.finish().unwrap();
        acknowledged
    }
}
