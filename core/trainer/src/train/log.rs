//! Logs: one JSON line and TensorBoard scalars for each report. A resumed run cuts the lines that were written after
//! its checkpoint, so that the file is the loss series of one run, whole.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use candle_core::{Error, Result};
use serde_json::{Map, Value};

/// The logs in a run's folder: `log.jsonl` and `tensorboard/`.
pub struct Logs {
    lines: File,
    events: File,
    path: PathBuf,
}

impl Logs {
    /// Opens them at `images` seen; what lies beyond is cut.
    pub fn open(run: &Path, images: u64) -> Result<Self> {
        let path = run.join("log.jsonl");
        let fail = |p: &Path, e: std::io::Error| Error::Msg(format!("{}: {e}", p.display()));
        std::fs::create_dir_all(run.join("tensorboard")).map_err(|e| fail(run, e))?;
        let kept = kept_lines(&std::fs::read_to_string(&path).unwrap_or_default(), images);
        sconce_nn::weights::write_atomic(&path, |out| out.write_all(kept.as_bytes()))?;
        let lines = File::options().append(true).open(&path).map_err(|e| fail(&path, e))?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let name = format!("tensorboard/events.out.tfevents.{}.sconce.{images}", seconds as u64);
        let event_path = run.join(name);
        let mut events = File::create(&event_path).map_err(|e| fail(&event_path, e))?;
        events
            .write_all(&record(&event(seconds, 0, |e| string(e, 3, "brain.Event:2"))))
            .map_err(|e| fail(&event_path, e))?;
        Ok(Self { lines, events, path })
    }

    /// Writes one report: `what` names it, `values` hold numbers.
    pub fn write(&mut self, what: &str, images: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut line = Map::new();
        line.insert("event".into(), what.into());
        line.insert("images".into(), images.into());
        for (name, value) in values {
            line.insert((*name).into(), serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number));
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let run = || -> std::io::Result<()> {
            writeln!(self.lines, "{}", Value::Object(line))?;
            for (name, value) in values {
                let scalar = event(seconds, images, |e| summary(e, &format!("{what}/{name}"), *value as f32));
                self.events.write_all(&record(&scalar))?;
            }
            Ok(())
        };
        run().map_err(|e| Error::Msg(format!("{}: cannot write: {e}", self.path.display())))
    }
}

/// The lines up to `images`; a torn last line goes too.
fn kept_lines(text: &str, images: u64) -> String {
    let keep = |line: &&str| {
        let value: Option<Value> = serde_json::from_str(line).ok();
        value.and_then(|v| v.get("images")?.as_u64()).is_some_and(|at| images > 0 && at <= images)
    };
    text.lines().filter(keep).flat_map(|l| [l, "\n"]).collect()
}

/// A TFRecord: length, masked CRC of the length, data, masked CRC of the data.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: log records are short.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(c & 1)))
    })
}

/// A tensorflow.Event: wall_time = 1 (double), step = 2 (int64), and what `body` adds.
fn event(seconds: f64, step: u64, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![(1 << 3) | 1];
    out.extend(seconds.to_le_bytes());
    out.push(2 << 3);
    varint(&mut out, step);
    body(&mut out);
    out
}

/// summary = 5 { value = 1 { tag = 1, simple_value = 2 (float) } }.
fn summary(out: &mut Vec<u8>, tag: &str, value: f32) {
    let mut inner = Vec::new();
    string(&mut inner, 1, tag);
    inner.push((2 << 3) | 5);
    inner.extend(value.to_le_bytes());
    let mut outer = Vec::new();
    bytes(&mut outer, 1, &inner);
    bytes(out, 5, &outer);
}

fn string(out: &mut Vec<u8>, field: u8, text: &str) {
    bytes(out, field, text.as_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, data: &[u8]) {
    out.push((field << 3) | 2);
    varint(out, data.len() as u64);
    out.extend(data);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_resumed_log_is_cut_after_its_checkpoint() {
        let text = "{\"event\":\"step\",\"images\":16}\n{\"event\":\"step\",\"images\":32}\n{\"event\":\"st";
        assert_eq!(kept_lines(text, 16), "{\"event\":\"step\",\"images\":16}\n");
        assert_eq!(kept_lines(text, 0), "");
    }
}
