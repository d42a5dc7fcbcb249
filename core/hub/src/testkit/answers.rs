//! What the Hub of the tests says when it is asked for something.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::state::{Files, Repo, State};
use super::taking;
use super::wire::{Answer, Seen};

pub(super) fn answer(state: &mut State, seen: &Seen) -> Answer {
    let path = seen.target.split('?').next().unwrap_or("");
    let parts: Vec<String> =
        path.split('/').skip(1).map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned()).collect();
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    let reading = matches!(seen.method.as_str(), "GET" | "HEAD");
    match words.as_slice() {
        ["api", kind @ ("models" | "datasets"), owner, name, rest @ ..] if reading => {
            let id = id(kind, owner, name);
            match rest {
                [] => with_revision(state, &id, "main", |repo, commit, files| info(&id, repo, commit, files)),
                ["revision", revision] => {
                    with_revision(state, &id, revision, |repo, commit, files| info(&id, repo, commit, files))
                }
                ["tree", revision, ..] => {
                    with_revision(state, &id, revision, |_, _, files| tree(files, &seen.target, state.page))
                }
                _ => Answer::new(404, ""),
            }
        }
        ["blob", oid] if reading => match state.stored.get(*oid) {
            Some(content) => Answer::new(200, content.to_vec()).with("ETag", format!("\"{oid}\"")),
            None => Answer::new(404, ""),
        },
        ["datasets", owner, name, "resolve", revision, path @ ..] if reading => {
            resolve(state, &format!("datasets/{owner}/{name}"), revision, &path.join("/"))
        }
        [owner, name, "resolve", revision, path @ ..] if reading => {
            resolve(state, &format!("{owner}/{name}"), revision, &path.join("/"))
        }
        _ => taking::answer(state, seen, &words),
    }
}

pub(super) fn id(kind: &str, owner: &str, name: &str) -> String {
    if kind == "datasets" { format!("datasets/{owner}/{name}") } else { format!("{owner}/{name}") }
}

pub(super) fn refuse(status: u16, code: &str) -> Answer {
    Answer::new(status, "{}").with("X-Error-Code", code)
}

pub(super) fn to_json(value: Value) -> Answer {
    Answer::new(200, value.to_string()).with("Content-Type", "application/json")
}

fn with_revision(state: &State, id: &str, revision: &str, say: impl FnOnce(&Repo, &str, &Files) -> Answer) -> Answer {
    let Some(repo) = state.repos.get(id) else { return refuse(404, "RepoNotFound") };
    match repo.at(revision) {
        Some((commit, files)) => say(repo, commit, files),
        None if revision == "main" => say(repo, &"0".repeat(40), &Files::new()),
        None => refuse(404, "RevisionNotFound"),
    }
}

fn info(id: &str, repo: &Repo, commit: &str, files: &Files) -> Answer {
    let sibling = |(path, entry): (&String, &super::state::Entry)| {
        let (size, etag) = (entry.content.len(), &entry.etag);
        let lfs = entry.large.then(|| json!({ "sha256": etag, "size": size, "pointerSize": 134 }));
        let mut told = json!({ "rfilename": path, "size": size, "blobId": entry.blob });
        if let (Some(lfs), Some(told)) = (lfs, told.as_object_mut()) {
            told.insert("lfs".into(), lfs);
        }
        told
    };
    let siblings: Vec<Value> = files.iter().map(sibling).collect();
    let id = id.trim_start_matches("datasets/");
    to_json(json!({ "id": id, "sha": commit, "private": repo.private, "siblings": siblings }))
}

/// Folders, and files in pages; where the next page begins is the number in its address.
fn tree(files: &Files, target: &str, page: Option<usize>) -> Answer {
    let folders: BTreeSet<&str> = files.keys().filter_map(|path| Some(path.rsplit_once('/')?.0)).collect();
    let mut entries: Vec<Value> = folders
        .iter()
        .map(|path| json!({ "type": "directory", "path": path, "size": 0, "oid": "0".repeat(40) }))
        .collect();
    entries.extend(files.iter().map(|(path, entry)| {
        let mut told = json!({ "type": "file", "path": path, "size": entry.content.len(), "oid": entry.blob });
        if let Some(told) = told.as_object_mut().filter(|_| entry.large) {
            told.insert("lfs".into(), json!({ "oid": entry.etag, "size": entry.content.len(), "pointerSize": 134 }));
        }
        told
    }));
    let (whole, at) = target.split_once("&cursor=").unwrap_or((target, "0"));
    let (at, page) = (at.parse().unwrap_or(0), page.unwrap_or(usize::MAX));
    let some: Vec<Value> = entries.iter().skip(at).take(page).cloned().collect();
    let next = at.saturating_add(page);
    let answer = to_json(Value::Array(some));
    if next < entries.len() { answer.with("Link", format!("<{whole}&cursor={next}>; rel=\"next\"")) } else { answer }
}

fn resolve(state: &State, id: &str, revision: &str, path: &str) -> Answer {
    let store = state.store.as_ref().map(|(url, _)| url.as_str());
    with_revision(state, id, revision, |repo, commit, files| {
        if repo.gated {
            return refuse(403, "GatedRepo");
        }
        let Some(entry) = files.get(path) else { return refuse(404, "EntryNotFound") };
        let etag = &entry.etag;
        let answer = match store.filter(|_| entry.large) {
            Some(store) => Answer::new(302, "").with("Location", format!("{store}/blob/{etag}?Signature=signed")),
            None => Answer::new(200, entry.content.to_vec()),
        };
        let quoted = format!("\"{etag}\"");
        answer
            .with("X-Repo-Commit", commit)
            .with("ETag", quoted.as_str())
            .with("X-Linked-Etag", quoted)
            .with("X-Linked-Size", entry.content.len().to_string())
    })
}
