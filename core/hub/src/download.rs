//! One file into the cache: it goes on where it was cut, and has its name only once its length and hash are what the listing
//! says. What arrives damaged is fetched once more from nothing, then it is an error that tells both.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use ureq::Body;
use ureq::http::Response;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_RANGE, RANGE};

use crate::cache::{Cache, length};
use crate::client::{Ask, Client};
use crate::error::{Error, Result};
use crate::listing::{Digest, FileInfo};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::retry::{Failure, Repeat};
use crate::web;

impl Client {
    /// Lets a file's blob be in the cache.
    pub fn obtain(
        &self,
        cache: &Cache,
        place: &Reference,
        commit: &str,
        file: &FileInfo,
        digest: &Digest,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let blob = cache.blob(digest);
        if length(&blob) == Some(file.size) {
            return Ok(());
        }
        let _held = cache.lock(digest, &file.path, progress)?;
        if length(&blob) == Some(file.size) {
            return Ok(());
        }
        let (repo, path) = (self.page(place), web::encode_path(&file.path));
        let url = format!("{repo}/resolve/{commit}/{path}");
        let at = cache.incomplete(digest);
        let mut wrong = Wrong::default();
        for _ in 0..2 {
            let mut partial = Partial::open(&at, file.size, digest)?;
            let came = self.fill(place, file, &url, &mut partial, progress)?;
            match came.or_else(|| partial.verify()) {
                None => {
                    partial.file.sync_all().map_err(Error::disk(&at, "write"))?;
                    drop(partial);
                    fs::rename(&at, &blob).map_err(Error::disk(&blob, "name the download"))?;
                    progress.end();
                    return Ok(());
                }
                Some(found) => wrong = found,
            }
            drop(partial);
            fs::remove_file(&at).map_err(Error::disk(&at, "delete the damaged download"))?;
            let Wrong { expected, found } = &wrong;
            progress.notice(&format!("{}: arrived damaged, with {found} for {expected}; deleted", file.path));
        }
        let Wrong { expected, found } = wrong;
        Err(Error::Damaged { place: place.to_string(), file: file.path.clone(), expected, found })
    }

    /// Fetches what is missing. `Some` where the length is another than the listed one.
    fn fill(
        &self,
        place: &Reference,
        file: &FileInfo,
        url: &str,
        partial: &mut Partial,
        progress: &mut dyn Progress,
    ) -> Result<Option<Wrong>> {
        progress.begin(&file.path, file.size);
        progress.advance(partial.have);
        if partial.have == file.size {
            return Ok(None);
        }
        self.settings.persist(&web::shown(url), Repeat::Freely, progress, |progress| {
            let mut ask = Ask::get(url);
            if partial.have > 0 {
                ask.headers.push((RANGE.to_string(), format!("bytes={}-", partial.have)));
            }
            let answer = self.once(ask)?;
            match answer.status().as_u16() {
                200 if partial.have == 0 => {}
                200 => {
                    progress
                        .notice(&format!("{}: the server does not go on where it was cut; from the start", file.path));
                    partial.clear()?;
                    progress.begin(&file.path, file.size);
                }
                206 if continues(&answer, partial.have, file.size) => {}
                206 | 416 => {
                    partial.clear()?;
                    progress.begin(&file.path, file.size);
                    return Err(Failure::Cut { why: "the server went on elsewhere than asked".into(), gained: 0 });
                }
                _ => return Err(self.refusal(place, Some(&file.path), &web::shown(url), answer)),
            }
            self.read(answer, partial, progress)
        })
    }

    fn read(
        &self,
        answer: Response<Body>,
        partial: &mut Partial,
        progress: &mut dyn Progress,
    ) -> Result<Option<Wrong>, Failure> {
        let encoded = answer.headers().contains_key(CONTENT_ENCODING);
        let body = answer.into_body();
        if let Some(bytes) = body.content_length().filter(|_| !encoded) {
            let whole = partial.have.saturating_add(bytes);
            if whole != partial.size {
                return Ok(Some(Wrong::length(partial.size, whole.to_string())));
            }
        }
        let mut from = body.into_reader();
        let mut buffer = vec![0; 1 << 16];
        let before = partial.have;
        loop {
            let gained = partial.have - before;
            match from.read(&mut buffer) {
                Ok(0) if partial.have == partial.size => return Ok(None),
                Ok(0) => return Err(Failure::Cut { why: "the connection ended early".into(), gained }),
                Ok(n) if partial.have + n as u64 > partial.size => {
                    return Ok(Some(Wrong::length(partial.size, format!("more than {}", partial.size))));
                }
                Ok(n) => {
                    partial.push(&buffer[..n])?;
                    progress.advance(n as u64);
                }
                Err(e) => return Err(Failure::Cut { why: self.broke(&e), gained }),
            }
        }
    }
}

/// Whether a partial answer begins where it should, of a file that is as long as it should be.
fn continues(answer: &Response<Body>, have: u64, size: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let parse = |range: &str| {
        let (range, whole) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, whole.to_owned()))
    };
    have > 0
        && range.and_then(parse).is_some_and(|(first, last, whole)| {
            first == have && last.checked_add(1) == Some(size) && (whole == "*" || whole.parse() == Ok(size))
        })
}

/// What was promised and what came.
#[derive(Default)]
struct Wrong {
    expected: String,
    found: String,
}

impl Wrong {
    fn length(expected: u64, found: String) -> Self {
        Self { expected: format!("{expected} bytes"), found: format!("{found} bytes") }
    }
}

/// A file that is not whole yet, and the hash of what is there.
struct Partial {
    file: File,
    path: PathBuf,
    have: u64,
    size: u64,
    hash: Hash,
    digest: Digest,
}

enum Hash {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hash {
    fn new(digest: &Digest, size: u64) -> Self {
        match digest {
            Digest::Sha256(_) => Self::Sha256(Sha256::new()),
            Digest::Git(_) => Self::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    fn hex(&self) -> (&'static str, String) {
        match self {
            Self::Sha256(hash) => ("SHA-256", hex(&hash.clone().finalize())),
            Self::Git(hash) => ("git's SHA-1", hex(&hash.clone().finalize())),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Partial {
    fn open(path: &Path, size: u64, digest: &Digest) -> Result<Self> {
        let open = || {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
        };
        let file = open().map_err(Error::disk(path, "open the download"))?;
        let (hash, digest) = (Hash::new(digest, size), digest.clone());
        let mut partial = Self { file, path: path.to_owned(), have: 0, size, hash, digest };
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = partial.file.read(&mut buffer).map_err(Error::disk(path, "read the part that is there"))?;
            partial.hash.update(&buffer[..n]);
            partial.have += n as u64;
            if partial.have > size {
                partial.clear()?;
            } else if n == 0 {
                return Ok(partial);
            }
        }
    }

    fn clear(&mut self) -> Result<()> {
        let done = self.file.set_len(0).and_then(|()| self.file.rewind());
        done.map_err(Error::disk(&self.path, "empty the download"))?;
        self.have = 0;
        self.hash = Hash::new(&self.digest, self.size);
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::disk(&self.path, "write the download"))?;
        self.hash.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    fn verify(&self) -> Option<Wrong> {
        let (kind, found) = self.hash.hex();
        let expected = self.digest.hex();
        (found != expected).then(|| Wrong { expected: format!("{kind} {expected}"), found: format!("{kind} {found}") })
    }
}
