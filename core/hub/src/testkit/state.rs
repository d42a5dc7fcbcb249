//! What the Hub of the tests holds: repositories with their commits, stored content, faults to come, requests that were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{Fault, Seen, lock};
use crate::download::hex;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub content: Arc<Vec<u8>>,
    pub large: bool,
    /// The hash by which the Hub knows it.
    pub etag: String,
    /// Git's hash of what git holds.
    pub blob: String,
}

impl Entry {
    pub fn new(content: Arc<Vec<u8>>, large: bool) -> Self {
        let oid = if large { sha256(&content) } else { String::new() };
        let pointer = format!("version 1\noid sha256:{oid}\nsize {}\n", content.len());
        let held = if large { pointer.as_bytes() } else { &content };
        let blob = hex(&Sha1::new_with_prefix(format!("blob {}\0", held.len())).chain_update(held).finalize());
        let etag = if large { oid } else { blob.clone() };
        Self { content, large, etag, blob }
    }
}

pub(super) type Files = BTreeMap<String, Entry>;

#[derive(Debug, Default)]
pub(super) struct Repo {
    pub private: bool,
    pub gated: bool,
    pub commits: BTreeMap<String, Files>,
    pub refs: BTreeMap<String, String>,
}

impl Repo {
    /// The commit and the files that a revision means.
    pub fn at(&self, revision: &str) -> Option<(&String, &Files)> {
        self.commits.get_key_value(self.refs.get(revision).map_or(revision, String::as_str))
    }

    /// Makes a commit of these files, and lets the branch be there.
    pub fn commit(&mut self, branch: &str, files: Files) -> String {
        let mut hash = Sha1::new_with_prefix(self.commits.len().to_string());
        for (path, entry) in &files {
            hash.update(format!("{path}\0{}\0", entry.etag));
        }
        let commit = hex(&hash.finalize());
        self.commits.insert(commit.clone(), files);
        self.refs.insert(branch.to_owned(), commit.clone());
        commit
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub url: String,
    /// By `owner/name` or `datasets/owner/name`.
    pub repos: BTreeMap<String, Repo>,
    /// Content that was uploaded, or is fetched from here, by SHA-256.
    pub stored: BTreeMap<String, Arc<Vec<u8>>>,
    /// Parts of content, by SHA-256 and number.
    pub parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Where large content lies, if elsewhere.
    pub store: Option<(String, Arc<Mutex<State>>)>,
    pub part: Option<usize>,
    pub page: Option<usize>,
    pub faults: Vec<(String, usize, Fault)>,
    pub seen: Vec<Seen>,
}

impl State {
    pub fn new(url: String) -> Self {
        let (repos, stored, parts) = Default::default();
        Self { url, repos, stored, parts, store: None, part: None, page: None, faults: Vec::new(), seen: Vec::new() }
    }

    pub fn add(&mut self, repo: &str, path: &str, content: Vec<u8>, large: bool) {
        let entry = Entry::new(Arc::new(content), large);
        if large {
            self.keep(entry.content.clone());
        }
        let repo = self.repos.entry(repo.to_owned()).or_default();
        let mut files = repo.at("main").map(|(_, files)| files.clone()).unwrap_or_default();
        files.insert(path.to_owned(), entry);
        repo.commit("main", files);
    }

    pub fn branch(&mut self, repo: &str, name: &str) {
        if let Some(repo) = self.repos.get_mut(repo) {
            let head = repo.refs.get("main").cloned().unwrap_or_default();
            repo.refs.insert(name.to_owned(), head);
        }
    }

    pub fn gate(&mut self, repo: &str) {
        self.repos.entry(repo.to_owned()).or_default().gated = true;
    }

    pub fn head(&self, repo: &str) -> Option<String> {
        self.repos.get(repo)?.refs.get("main").cloned()
    }

    pub fn content(&self, repo: &str, path: &str) -> Option<Vec<u8>> {
        Some(self.repos.get(repo)?.at("main")?.1.get(path)?.content.to_vec())
    }

    /// Stores content where large content lies.
    pub fn keep(&mut self, content: Arc<Vec<u8>>) {
        let oid = sha256(&content);
        match &self.store {
            Some((_, other)) => lock(other).stored.insert(oid, content),
            None => self.stored.insert(oid, content),
        };
    }

    /// Content that lies where large content lies.
    pub fn kept(&self, oid: &str) -> Option<Arc<Vec<u8>>> {
        match &self.store {
            Some((_, other)) => lock(other).stored.get(oid).cloned(),
            None => self.stored.get(oid).cloned(),
        }
    }

    /// The fault that this request meets.
    pub fn fault(&mut self, target: &str) -> Option<Fault> {
        let (_, left, fault) =
            self.faults.iter_mut().find(|(part, left, _)| *left > 0 && target.contains(part.as_str()))?;
        *left -= 1;
        Some(fault.clone())
    }
}

pub(super) fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}
