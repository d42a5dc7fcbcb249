//! `hf://owner/name@revision/file`: the words by which a recipe names something on the Hub. What is malformed is told here,
//! before anything is asked of a server.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::check;
use crate::error::{Error, Result};
use crate::web::encode;

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Weights.
    Model,
    /// Data.
    Dataset,
}

impl Kind {
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// A repository on the Hub, perhaps at a revision, perhaps one file or folder in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    kind: Kind,
    id: String,
    revision: Option<String>,
    path: Option<String>,
}

impl Reference {
    /// Whether a text means to be a reference.
    pub fn is(text: &str) -> bool {
        text.starts_with("hf://")
    }

    /// What the repository holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit; `main` where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The file or folder inside, if one is named.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The same at a commit, of 40 hexadecimal digits: what a run writes down, so that it can be had again.
    pub fn pinned(&self, commit: &str) -> Result<Self> {
        if !check::commit(commit) {
            let why = format!("`{commit}` is no commit: expected 40 hexadecimal digits");
            return Err(Error::Reference { text: self.to_string(), why });
        }
        Ok(Self { revision: Some(commit.to_owned()), ..self.clone() })
    }

    /// The name by which `hf-hub` knows the repository.
    pub(crate) fn repo(&self) -> hf_hub::Repo {
        let kind = match self.kind {
            Kind::Model => hf_hub::RepoType::Model,
            Kind::Dataset => hf_hub::RepoType::Dataset,
        };
        hf_hub::Repo::with_revision(self.id.clone(), kind, self.revision().to_owned())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("hf://").ok_or("it does not begin with hf://")?;
        if rest.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("it has a space or a control character (a space inside a file's name is written %20)".into());
        }
        let (kind, rest) = match rest.strip_prefix("datasets/") {
            Some(rest) => (Kind::Dataset, rest),
            None => (Kind::Model, rest),
        };
        let mut parts = rest.splitn(3, '/');
        let owner = parts.next().unwrap_or("");
        let name = parts.next().ok_or("an owner and a name are needed")?;
        if matches!(owner, "models" | "spaces" | "datasets") {
            return Err(format!("`{owner}` is no owner; only models (no word for them) and datasets can be named"));
        }
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(decode(revision)?)),
            None => (name, None),
        };
        for (what, word) in [("owner", owner), ("name", name)] {
            if let Some(why) = check::name(word) {
                return Err(format!("the {what} `{word}` {why}"));
            }
        }
        if let Some((revision, why)) = revision.as_ref().and_then(|r| Some((r, check::revision(r)?))) {
            return Err(format!("the revision {revision:?} {why} (a slash in it is written %2F)"));
        }
        let path = parts.next().map(decode).transpose()?;
        if let Some((path, why)) = path.as_ref().and_then(|p| Some((p, check::path(p)?))) {
            return Err(format!("the file {path:?} {why}"));
        }
        Ok(Self { kind, id: format!("{owner}/{name}"), revision, path })
    }
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| format!("`{text}` is not UTF-8"))?;
    Ok(decoded.into_owned())
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| Error::Reference { text: text.escape_debug().to_string(), why })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hf://")?;
        if self.kind == Kind::Dataset {
            f.write_str("datasets/")?;
        }
        f.write_str(&self.id)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{}", encode(revision))?;
        }
        match &self.path {
            Some(path) => write!(f, "/{}", path.split('/').map(encode).collect::<Vec<_>>().join("/")),
            None => Ok(()),
        }
    }
}
