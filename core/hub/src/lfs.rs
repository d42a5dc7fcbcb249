//! Large files to the Hub by Git LFS: the batch answer says where each goes, as a whole or in parts. Those places are often
//! of another host and signed; the token goes to none of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use ureq::http::{Method, header::ETAG};

use crate::client::{Ask, Client, Content};
use crate::download::hex;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::push::{AT_ONCE, post};
use crate::reference::Reference;
use crate::retry::Repeat;
use crate::web;

const TYPE: &str = "application/vnd.git-lfs+json";

/// A file that goes by LFS.
pub(crate) struct Large<'a> {
    pub path: String,
    pub oid: String,
    pub bytes: u64,
    local: &'a Path,
}

impl<'a> Large<'a> {
    pub fn new(path: String, local: &'a Path, bytes: u64) -> Result<Self> {
        let hash = || {
            let (mut hash, mut file) = (Sha256::new(), File::open(local)?);
            std::io::copy(&mut file, &mut hash).map(|_| hex(&hash.finalize()))
        };
        Ok(Self { path, local, bytes, oid: hash().map_err(Error::disk(local, "read"))? })
    }
}

#[derive(Deserialize)]
struct Batch {
    transfer: Option<String>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Map<String, Value>,
}

impl Client {
    /// Lets the Hub have large files. What it has already is not sent.
    pub fn upload<'a>(
        &self,
        place: &Reference,
        files: Vec<Large<'a>>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Large<'a>>> {
        let url = format!("{}.git/info/lfs/objects/batch", self.page(place));
        for some in files.chunks(AT_ONCE) {
            let by_oid: BTreeMap<&str, &Large> = some.iter().map(|f| (f.oid.as_str(), f)).collect();
            let objects: Vec<Value> = by_oid.values().map(|f| json!({ "oid": f.oid, "size": f.bytes })).collect();
            let transfers = ["basic", "multipart"];
            let asked = json!({
                "operation": "upload", "transfers": transfers, "hash_algo": "sha256", "objects": objects,
                "ref": { "name": place.revision() },
            })
            .to_string();
            let ask = || {
                let mut ask = post(&url, TYPE, asked.as_bytes());
                ask.headers.push(("Accept".into(), TYPE.into()));
                ask
            };
            let batch: Batch = self.json(place, Repeat::Freely, progress, ask)?;
            if let Some(other) = batch.transfer.filter(|t| !transfers.contains(&t.as_str())) {
                return Err(
                    self.strange(&url, format!("uploads are to go by `{other}`, which this program does not speak"))
                );
            }
            for (oid, file) in by_oid {
                let Some(object) = batch.objects.iter().find(|o| o.oid == oid) else {
                    return Err(self.strange(&url, format!("the answer leaves out `{}` ({oid})", file.path)));
                };
                if let Some(problem) = &object.error {
                    let why = self.clean(&format!("the Hub refuses `{}`: {:.300}", file.path, problem.message));
                    return Err(Error::Push { place: place.to_string(), why });
                }
                self.transfer(place, file, object, progress)?;
            }
        }
        Ok(files)
    }

    fn transfer(&self, place: &Reference, file: &Large, object: &Object, progress: &mut dyn Progress) -> Result<()> {
        let Some(actions) = &object.actions else { return Ok(()) };
        if let Some(upload) = &actions.upload {
            match upload.header.get("chunk_size") {
                None => {
                    self.put(place, file, &upload.href, &self.headers(upload), 0..file.bytes, progress)?;
                }
                Some(size) => self.in_parts(place, file, upload, size, progress)?,
            }
            progress.end();
        }
        if let Some(verify) = &actions.verify {
            let body = json!({ "oid": file.oid, "size": file.bytes }).to_string();
            self.done(place, Repeat::Freely, progress, || post(&verify.href, TYPE, body.as_bytes()))?;
        }
        Ok(())
    }

    fn in_parts(
        &self,
        place: &Reference,
        file: &Large,
        upload: &Action,
        size: &Value,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|&s| s > 0);
        let number = |(name, url): (&String, &Value)| Some((name.parse::<u64>().ok()?, url.as_str()?.to_owned()));
        let parts: BTreeMap<u64, String> = upload.header.iter().filter_map(number).collect();
        let Some(size) = size.filter(|&s| file.bytes.div_ceil(s) == parts.len() as u64) else {
            return Err(
                self.strange(&upload.href, format!("the parts do not make up the {} bytes of a file", file.bytes))
            );
        };
        let mut sent = Vec::new();
        for (i, (_, url)) in (0..).zip(&parts) {
            let range = i * size..((i + 1) * size).min(file.bytes);
            let etag = self.put(place, file, url, &[], range, progress)?;
            let etag = etag.ok_or_else(|| self.strange(url, "a part was taken without an ETag".into()))?;
            sent.push(json!({ "partNumber": i + 1, "etag": etag }));
        }
        let body = json!({ "oid": file.oid, "parts": sent }).to_string();
        self.done(place, Repeat::Freely, progress, || post(&upload.href, TYPE, body.as_bytes()))
    }

    /// Sends a range of a file to an address; the answer's ETag.
    fn put(
        &self,
        place: &Reference,
        file: &Large,
        url: &str,
        headers: &[(String, String)],
        range: std::ops::Range<u64>,
        progress: &mut dyn Progress,
    ) -> Result<Option<String>> {
        let shown = self.clean(&web::shown(url));
        self.settings.persist(&shown, Repeat::Freely, progress, |progress| {
            progress.begin(&file.path, file.bytes);
            progress.advance(range.start);
            let open = || {
                let mut from = File::open(file.local)?;
                from.seek(SeekFrom::Start(range.start)).map(|_| from)
            };
            let from = open().map_err(Error::disk(file.local, "read"))?;
            let mut told = Told { from: from.take(range.end - range.start), progress };
            let content = Content::Stream(&mut told, range.end - range.start);
            let ask = Ask { method: Method::PUT, url: url.to_owned(), headers: headers.to_vec(), content };
            let answer = self.once(ask)?;
            if !answer.status().is_success() {
                return Err(self.refusal(place, None, &shown, answer));
            }
            Ok(answer.headers().get(ETAG).and_then(|e| e.to_str().ok()).map(str::to_owned))
        })
    }

    /// The headers that an upload is to have. None of them carries the token, whatever the answer says.
    fn headers(&self, action: &Action) -> Vec<(String, String)> {
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        let ours = |value: &str| self.settings.token.as_ref().is_some_and(|token| token.is_in(value));
        action.header.iter().filter_map(text).filter(|(_, value)| !ours(value)).collect()
    }
}

/// A reader that tells how far it is.
struct Told<'a, R> {
    from: R,
    progress: &'a mut dyn Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.progress.advance(n as u64);
        Ok(n)
    }
}
