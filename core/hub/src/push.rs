//! A folder's files to the Hub, in one commit. The Hub says which of them go by Git LFS; those are uploaded first, the rest
//! travels inside the commit. A commit whose answer was lost is not sent again: it may have been made.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;
use ureq::http::Method;

use crate::check;
use crate::client::{Ask, Content};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::lfs::Large;
use crate::progress::Progress;
use crate::reference::{Kind, Reference};
use crate::retry::Repeat;
use crate::web::encode;

/// Who may see a repository that a push makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Its owner. To push so into a repository that everybody sees is an error.
    Private,
    /// Everybody.
    Public,
}

/// So many bytes at most go inside a commit.
const INSIDE: u64 = 256 << 20;
/// So many files are asked about at once.
pub(crate) const AT_ONCE: usize = 256;

struct Addition<'a> {
    path: String,
    local: &'a Path,
    bytes: u64,
}

#[derive(Deserialize)]
struct Existing {
    private: Option<bool>,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
struct Mode {
    path: String,
    #[serde(rename = "uploadMode")]
    mode: String,
    #[serde(rename = "shouldIgnore", default)]
    ignored: bool,
}

#[derive(Deserialize)]
struct Committed {
    #[serde(rename = "commitUrl")]
    url: String,
}

impl Hub {
    /// Makes the repository where there is none, and one commit in it that adds the files: (path in the repository, file
    /// here). A folder in the reference goes before the paths. Returns the commit's URL.
    pub fn push(
        &self,
        place: &Reference,
        files: &[(String, PathBuf)],
        message: &str,
        visibility: Visibility,
        progress: &mut dyn Progress,
    ) -> Result<String> {
        let shown = place.to_string();
        if self.client.settings.token.is_none() {
            return Err(Error::NoToken { place: shown, endpoint: self.client.endpoint.clone() });
        }
        if self.client.settings.offline {
            return Err(Error::Push { place: shown, why: "HF_HUB_OFFLINE is set; unset it".into() });
        }
        let additions = additions(place, files)?;
        self.create(place, visibility, progress)?;
        let (large, small) = self.split(place, &additions, progress)?;
        let large = self.client.upload(place, large, progress)?;
        self.commit(place, message, &large, &small, progress)
    }

    fn create(&self, place: &Reference, visibility: Visibility, progress: &mut dyn Progress) -> Result<()> {
        let client = &self.client;
        let (kind, id) = (place.kind().plural(), place.id());
        let url = format!("{}/api/{kind}/{id}", client.endpoint);
        match client.json::<Existing>(place, Repeat::Freely, progress, || Ask::get(&url)) {
            Err(Error::NoRepository { .. }) => {}
            Err(other) => return Err(other),
            Ok(there) => {
                return match (there.private, visibility) {
                    (Some(false) | None, Visibility::Private) => Err(Error::Push {
                        place: place.to_string(),
                        why: "the repository is there and everybody can see it; make it private, or push publicly"
                            .into(),
                    }),
                    (Some(true), Visibility::Public) => {
                        progress.notice(&format!("{place}: the repository is there and is private; it stays so"));
                        Ok(())
                    }
                    _ => Ok(()),
                };
            }
        }
        let (owner, name) = id.split_once('/').unwrap_or(("", id));
        let kind = if place.kind() == Kind::Dataset { "dataset" } else { "model" };
        let private = visibility == Visibility::Private;
        let wish = json!({ "type": kind, "name": name, "organization": owner, "private": private }).to_string();
        let url = format!("{}/api/repos/create", client.endpoint);
        match client.done(place, Repeat::Freely, progress, || post(&url, "application/json", wish.as_bytes())) {
            Err(Error::Refused { status: 409, .. }) => Ok(()), // made by another, or by a try whose answer was lost
            made => made.map(|()| progress.notice(&format!("{place}: the repository was made"))),
        }
    }

    /// Asks the Hub which files are large.
    fn split<'a>(
        &self,
        place: &Reference,
        additions: &'a [Addition<'a>],
        progress: &mut dyn Progress,
    ) -> Result<(Vec<Large<'a>>, Vec<&'a Addition<'a>>)> {
        let (kind, id, revision) = (place.kind().plural(), place.id(), encode(place.revision()));
        let url = format!("{}/api/{kind}/{id}/preupload/{revision}", self.client.endpoint);
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for some in additions.chunks(AT_ONCE) {
            let mut described = Vec::new();
            for file in some {
                let sample = STANDARD.encode(file.head(512)?);
                described.push(json!({ "path": file.path, "size": file.bytes, "sample": sample }));
            }
            let asked = json!({ "files": described }).to_string();
            let ask = || post(&url, "application/json", asked.as_bytes());
            let modes: Modes = self.client.json(place, Repeat::Freely, progress, ask)?;
            for file in some {
                let Some(mode) = modes.files.iter().find(|m| m.path == file.path) else {
                    return Err(self.client.strange(&url, format!("the answer leaves out `{}`", file.path)));
                };
                match mode.mode.as_str() {
                    _ if mode.ignored => {
                        progress.notice(&format!("{}: left out, for the repository's .gitignore names it", file.path));
                    }
                    // Nothing can be uploaded by LFS that is nothing.
                    "lfs" if file.bytes > 0 => {
                        large.push(Large::new(file.path.clone(), file.local, file.bytes)?);
                    }
                    "lfs" | "regular" => small.push(file),
                    other => {
                        return Err(self.client.strange(&url, format!("`{}` is to go by `{other}`", file.path)));
                    }
                }
            }
        }
        if large.is_empty() && small.is_empty() {
            return Err(Error::Push {
                place: place.to_string(),
                why: "the repository's .gitignore names every file".into(),
            });
        }
        Ok((large, small))
    }

    fn commit(
        &self,
        place: &Reference,
        message: &str,
        large: &[Large],
        small: &[&Addition],
        progress: &mut dyn Progress,
    ) -> Result<String> {
        let inside: u64 = small.iter().map(|f| f.bytes).sum();
        if inside > INSIDE {
            let why = format!("{inside} bytes would go inside the commit, by the Hub's word; {INSIDE} are the most");
            return Err(Error::Push { place: place.to_string(), why });
        }
        let mut lines = vec![json!({ "key": "header", "value": { "summary": message, "description": "" } })];
        for file in small {
            let content = STANDARD.encode(file.head(file.bytes)?);
            lines.push(
                json!({ "key": "file", "value": { "path": file.path, "encoding": "base64", "content": content } }),
            );
        }
        for file in large {
            let (path, oid, size) = (&file.path, &file.oid, file.bytes);
            lines.push(
                json!({ "key": "lfsFile", "value": { "path": path, "algo": "sha256", "oid": oid, "size": size } }),
            );
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (kind, id, revision) = (place.kind().plural(), place.id(), encode(place.revision()));
        let url = format!("{}/api/{kind}/{id}/commit/{revision}", self.client.endpoint);
        let ask = || post(&url, "application/x-ndjson", body.as_bytes());
        let made =
            self.client.json::<Committed>(place, Repeat::Unsent, progress, ask).map_err(|error| match error {
                Error::GaveUp { why, .. } => {
                    let seen = format!("{}/commits/{revision}", self.client.page(place));
                    let why = format!("the commit was not answered ({why}); whether it was made is seen at {seen}");
                    Error::Push { place: place.to_string(), why }
                }
                other => other,
            })?;
        Ok(self.client.clean(&made.url.chars().filter(|c| !c.is_control()).take(1000).collect::<String>()))
    }
}

/// A request that sends something.
pub(crate) fn post<'a>(url: &str, kind: &'a str, body: &'a [u8]) -> Ask<'a> {
    Ask { method: Method::POST, url: url.to_owned(), headers: Vec::new(), content: Content::Bytes(kind, body) }
}

/// What is to be added, looked at before anything is asked.
fn additions<'a>(place: &Reference, files: &'a [(String, PathBuf)]) -> Result<Vec<Addition<'a>>> {
    let wrong = |why: String| Error::Push { place: place.to_string(), why };
    let mut seen = BTreeSet::new();
    let mut additions = Vec::new();
    for (path, local) in files {
        let path = place.path().map_or_else(|| path.clone(), |folder| format!("{folder}/{path}"));
        if let Some(why) = check::path(&path) {
            return Err(wrong(format!("the path {path:?} {why}")));
        }
        if !seen.insert(path.clone()) {
            return Err(wrong(format!("`{path}` is given twice")));
        }
        let meta = fs::metadata(local).map_err(Error::disk(local, "read"))?;
        if !meta.is_file() {
            return Err(wrong(format!("{} is no file", local.display())));
        }
        additions.push(Addition { path, local, bytes: meta.len() });
    }
    if additions.is_empty() { Err(wrong("no file is given".into())) } else { Ok(additions) }
}

impl Addition<'_> {
    /// Its first bytes, so many at most.
    fn head(&self, bytes: u64) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(self.local)
            .and_then(|f| f.take(bytes).read_to_end(&mut head))
            .map_err(Error::disk(self.local, "read"))?;
        Ok(head)
    }
}
