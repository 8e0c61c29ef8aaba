//! What others send: JSON arrays under gzip, OTLP-shaped and Sparkplug-B-shaped protobuf under
//! zstd.
//!
//! Each in its lean form: no quality, no sequence number, no word that its schema does not need.
//! Ours carries both. Only payloads are counted: no topic, no HTTP, no gRPC.

use crate::input::{Cell, File, Item};
use anyhow::{Context, Result};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// A way to send readings.
pub trait Peer {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// Readings to bytes.
    fn encode(&mut self, file: &File, items: &[Item]) -> Result<Vec<u8>>;
    /// Bytes to readings in memory; how many.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize>;
}

/// `[{"device": …, "metric": …, "ts": …, "value": …}, …]` under gzip, level 6.
pub struct JsonGzip;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonValue<'a> {
    Truth(bool),
    Number(f64),
    Text(std::borrow::Cow<'a, str>),
}

#[derive(Serialize, Deserialize)]
struct JsonReading<'a> {
    device: &'a str,
    metric: &'a str,
    ts: i64,
    #[serde(borrow)]
    value: JsonValue<'a>,
}

impl Peer for JsonGzip {
    fn name(&self) -> &'static str {
        "json[]+gzip-6"
    }

    fn encode(&mut self, file: &File, items: &[Item]) -> Result<Vec<u8>> {
        let readings: Vec<_> = items
            .iter()
            .map(|item| JsonReading {
                device: &file.device,
                metric: file
                    .metrics
                    .get(item.series as usize)
                    .map_or("", |name| name),
                ts: item.time / 1000,
                value: match &item.value {
                    Cell::Truth(x) => JsonValue::Truth(*x),
                    Cell::Number(x) => JsonValue::Number(*x),
                    Cell::Text(x) => JsonValue::Text(x.into()),
                },
            })
            .collect();
        let json = serde_json::to_vec(&readings)?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(&json)?;
        Ok(gzip.finish()?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut json)?;
        let readings: Vec<JsonReading<'_>> = serde_json::from_slice(&json)?;
        Ok(std::hint::black_box(readings).len())
    }
}

/// zstd level 3 with contexts that are kept.
struct Zstd {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl Zstd {
    fn new() -> Result<Self> {
        let (compressor, decompressor) = (
            zstd::bulk::Compressor::new(3)?,
            zstd::bulk::Decompressor::new()?,
        );
        Ok(Self {
            compressor,
            decompressor,
        })
    }

    fn unpack(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(self.decompressor.decompress(bytes, 64 << 20)?)
    }
}

/// `ExportMetricsServiceRequest`: one gauge a series, with the field numbers of OTLP.
pub struct OtlpZstd(Zstd);

#[derive(Message)]
struct OtlpRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<OtlpResourceMetrics>,
}

#[derive(Message)]
struct OtlpResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<OtlpScopeMetrics>,
}

#[derive(Message)]
struct OtlpResource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<OtlpKeyValue>,
}

#[derive(Message)]
struct OtlpKeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<OtlpAnyValue>,
}

#[derive(Message)]
struct OtlpAnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

#[derive(Message)]
struct OtlpScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<OtlpMetric>,
}

#[derive(Message)]
struct OtlpMetric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<OtlpGauge>,
}

#[derive(Message)]
struct OtlpGauge {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<OtlpPoint>,
}

#[derive(Message)]
struct OtlpPoint {
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(double, optional, tag = "4")]
    as_double: Option<f64>,
    #[prost(sfixed64, optional, tag = "6")]
    as_int: Option<i64>,
    /// OTLP has no texts as values: an attribute carries one.
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<OtlpKeyValue>,
}

fn otlp_text(key: &str, value: &str) -> OtlpKeyValue {
    let value = Some(OtlpAnyValue {
        string_value: Some(value.to_owned()),
    });
    OtlpKeyValue {
        key: key.to_owned(),
        value,
    }
}

impl OtlpZstd {
    /// With contexts of its own.
    pub fn new() -> Result<Self> {
        Zstd::new().map(Self)
    }
}

impl Peer for OtlpZstd {
    fn name(&self) -> &'static str {
        "otlp+zstd-3"
    }

    fn encode(&mut self, file: &File, items: &[Item]) -> Result<Vec<u8>> {
        let mut gauges: Vec<OtlpGauge> = Vec::new();
        gauges.resize_with(file.metrics.len(), OtlpGauge::default);
        for item in items {
            let mut point = OtlpPoint {
                time_unix_nano: item.time as u64 * 1000,
                ..OtlpPoint::default()
            };
            match &item.value {
                Cell::Number(x) => point.as_double = Some(*x),
                Cell::Truth(x) => point.as_int = Some(i64::from(*x)),
                Cell::Text(x) => point.attributes.push(otlp_text("value", x)),
            }
            let gauge = gauges
                .get_mut(item.series as usize)
                .context("a series of this file")?;
            gauge.data_points.push(point);
        }
        let metrics = file
            .metrics
            .iter()
            .zip(gauges)
            .map(|(name, gauge)| OtlpMetric {
                name: name.clone(),
                gauge: Some(gauge),
            });
        let resource = OtlpResource {
            attributes: vec![otlp_text("device", &file.device)],
        };
        let request = OtlpRequest {
            resource_metrics: vec![OtlpResourceMetrics {
                resource: Some(resource),
                scope_metrics: vec![OtlpScopeMetrics {
                    metrics: metrics.collect(),
                }],
            }],
        };
        Ok(self.0.compressor.compress(&request.encode_to_vec())?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let request = OtlpRequest::decode(self.0.unpack(bytes)?.as_slice())?;
        let metrics = request
            .resource_metrics
            .iter()
            .flat_map(|resource| &resource.scope_metrics);
        let gauges = metrics
            .flat_map(|scope| &scope.metrics)
            .filter_map(|m| m.gauge.as_ref());
        Ok(gauges.map(|gauge| gauge.data_points.len()).sum())
    }
}

/// Sparkplug B `DDATA`: metrics by alias, with its field numbers.
pub struct SparkplugZstd {
    zstd: Zstd,
    seq: u64,
}

#[derive(Message)]
struct SparkplugPayload {
    #[prost(uint64, tag = "1")]
    timestamp: u64,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<SparkplugMetric>,
    #[prost(uint64, tag = "3")]
    seq: u64,
}

#[derive(Message)]
struct SparkplugMetric {
    #[prost(uint64, tag = "2")]
    alias: u64,
    #[prost(uint64, tag = "3")]
    timestamp: u64,
    #[prost(uint32, tag = "4")]
    datatype: u32,
    #[prost(double, optional, tag = "13")]
    double_value: Option<f64>,
    #[prost(bool, optional, tag = "14")]
    boolean_value: Option<bool>,
    #[prost(string, optional, tag = "15")]
    string_value: Option<String>,
}

impl SparkplugZstd {
    /// With contexts of its own.
    pub fn new() -> Result<Self> {
        Ok(Self {
            zstd: Zstd::new()?,
            seq: 0,
        })
    }
}

impl Peer for SparkplugZstd {
    fn name(&self) -> &'static str {
        "sparkplug+zstd-3"
    }

    fn encode(&mut self, _: &File, items: &[Item]) -> Result<Vec<u8>> {
        let metrics = items.iter().map(|item| {
            let mut metric = SparkplugMetric {
                alias: u64::from(item.series),
                timestamp: item.time as u64 / 1000,
                ..SparkplugMetric::default()
            };
            match &item.value {
                Cell::Number(x) => (metric.datatype, metric.double_value) = (10, Some(*x)),
                Cell::Truth(x) => (metric.datatype, metric.boolean_value) = (11, Some(*x)),
                Cell::Text(x) => (metric.datatype, metric.string_value) = (12, Some(x.clone())),
            }
            metric
        });
        self.seq = (self.seq + 1) % 256;
        let timestamp = items.last().map_or(0, |item| item.time as u64 / 1000);
        let payload = SparkplugPayload {
            timestamp,
            metrics: metrics.collect(),
            seq: self.seq,
        };
        Ok(self.zstd.compressor.compress(&payload.encode_to_vec())?)
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<usize> {
        let payload = SparkplugPayload::decode(self.zstd.unpack(bytes)?.as_slice())?;
        Ok(std::hint::black_box(payload).metrics.len())
    }
}
