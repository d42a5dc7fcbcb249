//! Which files a revision holds, as the Hub tells it. Nothing of an answer is believed before it is checked: commit, paths
//! and hashes all become names on the disk.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::check;
use crate::client::{Ask, Client};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::retry::Repeat;
use crate::web::encode;

/// What a file's content is known by; the name of its blob in the cache, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// Of the content of a large file.
    Sha256(String),
    /// Git's SHA-1 of any other: of `blob`, the length, and the content.
    Git(String),
}

impl Digest {
    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// From digits, by their number.
    pub(crate) fn of(hex: &str) -> Option<Self> {
        match hex.len() {
            64 if check::hex(hex, 64) => Some(Self::Sha256(hex.to_owned())),
            40 if check::hex(hex, 40) => Some(Self::Git(hex.to_owned())),
            _ => None,
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Where in the repository.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its hash. `None` only of a file in a cache that holds copies where it would hold links.
    pub digest: Option<Digest>,
}

/// The files of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit that the revision is at.
    pub commit: String,
    /// Sorted by path. Of a reference that names a file or folder, that.
    pub files: Vec<FileInfo>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: Option<String>,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: Option<String>,
    size: Option<u64>,
}

impl Client {
    /// All files of a revision. The description of a repository may leave some out where they are many; its tree does not.
    pub fn listing(&self, place: &Reference, repeat: Repeat, progress: &mut dyn Progress) -> Result<Listing> {
        let (kind, id, revision) = (place.kind().plural(), place.id(), place.revision());
        let api = format!("{}/api/{kind}/{id}", self.endpoint);
        let commit = if check::commit(revision) {
            revision.to_owned()
        } else {
            let url = format!("{api}/revision/{}", encode(revision));
            let info: Info = self.json(place, repeat, progress, || Ask::get(&url))?;
            if !check::commit(&info.sha) {
                let told: String = info.sha.chars().take(80).collect();
                return Err(self.strange(&url, format!("{told:?} is no commit")));
            }
            info.sha
        };
        let url = format!("{api}/tree/{commit}?recursive=true&expand=false");
        let entries = self.pages::<Entry>(place, repeat, progress, &url)?;
        let mut seen = BTreeSet::new();
        let mut files = Vec::with_capacity(entries.len());
        for entry in entries {
            let hostile = |why| Error::Hostile {
                place: place.to_string(),
                path: self.clean(&entry.path.chars().take(300).collect::<String>()),
                why,
            };
            if let Some(why) = check::path(&entry.path) {
                return Err(hostile(why));
            }
            if !seen.insert(entry.path.clone()) {
                return Err(hostile("is listed twice"));
            }
            if entry.kind != "file" {
                continue;
            }
            let (size, digest) = match &entry.lfs {
                Some(lfs) => (lfs.size.or(entry.size), lfs.oid.as_deref().filter(|hex| hex.len() == 64)),
                None => (entry.size, entry.oid.as_deref().filter(|hex| hex.len() == 40)),
            };
            let (Some(size), Some(digest)) = (size, digest.and_then(Digest::of)) else {
                return Err(hostile("has no length or no hash"));
            };
            files.push(FileInfo { path: entry.path, size, digest: Some(digest) });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Listing { commit, files })
    }
}

impl Listing {
    /// Of these the file or the folder that the reference names.
    pub(crate) fn inside(self, place: &Reference) -> Result<Self> {
        let Some(wanted) = place.path() else { return Ok(self) };
        let folder = format!("{wanted}/");
        let (files, others): (Vec<_>, Vec<_>) =
            self.files.into_iter().partition(|f| f.path == wanted || f.path.starts_with(&folder));
        if files.is_empty() {
            let nearest = nearest(wanted, others.iter().map(|f| f.path.as_str()));
            return Err(Error::NoFile { place: place.to_string(), file: wanted.to_owned(), nearest });
        }
        Ok(Self { files, ..self })
    }
}

/// The three names most like one, best first; none where none is like it.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let last = |path: &str| path.rsplit('/').next().unwrap_or("").to_owned();
    let likeness = |other: &str| {
        let same_file = if last(other) == last(name) { 0.9 } else { 0.0 };
        strsim::normalized_levenshtein(name, other).max(same_file)
    };
    let mut found: Vec<(f64, &str)> = names.map(|n| (likeness(n), n)).filter(|(l, _)| *l >= 0.5).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    found.into_iter().take(3).map(|(_, n)| n.to_owned()).collect()
}
