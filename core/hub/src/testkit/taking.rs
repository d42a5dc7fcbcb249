//! What the Hub of the tests does with what it is given: repositories, large files as a whole or in parts, commits.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answers::{id, refuse, to_json};
use super::state::{Entry, Repo, State, sha256};
use super::wire::{Answer, Seen};

pub(super) fn answer(state: &mut State, seen: &Seen, words: &[&str]) -> Answer {
    let sent: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    match (seen.method.as_str(), words) {
        ("PUT", ["blob", oid]) => put(state, oid, &seen.body),
        ("PUT", ["part", oid, number]) => {
            let number = number.parse().unwrap_or(0);
            state.parts.insert(((*oid).to_owned(), number), seen.body.clone());
            Answer::new(200, "").with("ETag", format!("\"part-{number}\""))
        }
        ("POST", ["complete", oid]) => complete(state, oid, &sent),
        ("POST", _) if seen.header("authorization").is_none() => Answer::new(401, ""),
        ("POST", ["verify"]) => match state.kept(text(&sent, "oid")) {
            Some(_) => Answer::new(200, ""),
            None => Answer::new(404, ""),
        },
        ("POST", ["api", "repos", "create"]) => create(state, &sent),
        ("POST", ["api", kind, owner, name, "preupload", revision]) => match state.repos.get(&id(kind, owner, name)) {
            Some(repo) if *revision == "main" || repo.refs.contains_key(*revision) => preupload(&sent),
            Some(_) => refuse(404, "RevisionNotFound"),
            None => refuse(404, "RepoNotFound"),
        },
        ("POST", [.., "info", "lfs", "objects", "batch"]) => batch(state, &sent),
        ("POST", ["api", kind, owner, name, "commit", revision]) => {
            commit(state, &id(kind, owner, name), revision, &seen.body)
        }
        _ => Answer::new(404, ""),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn put(state: &mut State, oid: &str, body: &[u8]) -> Answer {
    if sha256(body) != oid {
        return Answer::new(400, "");
    }
    state.stored.insert(oid.to_owned(), Arc::new(body.to_vec()));
    Answer::new(200, "").with("ETag", "\"whole\"")
}

fn complete(state: &mut State, oid: &str, sent: &Value) -> Answer {
    let parts = match &state.store {
        Some((_, other)) => super::lock(other).parts.clone(),
        None => state.parts.clone(),
    };
    let mut whole = Vec::new();
    for part in list(&sent["parts"]) {
        let number = part["partNumber"].as_u64().unwrap_or(0) as usize;
        if text(part, "etag") != format!("\"part-{number}\"") {
            return Answer::new(400, "");
        }
        whole.extend(parts.get(&(oid.to_owned(), number)).cloned().unwrap_or_default());
    }
    if sha256(&whole) != oid {
        return Answer::new(400, "");
    }
    state.keep(Arc::new(whole));
    Answer::new(200, "")
}

fn create(state: &mut State, sent: &Value) -> Answer {
    let kind = if text(sent, "type") == "dataset" { "datasets" } else { "models" };
    let id = id(kind, text(sent, "organization"), text(sent, "name"));
    if state.repos.contains_key(&id) {
        return Answer::new(409, "");
    }
    let private = sent["private"].as_bool().unwrap_or(false);
    let answer = to_json(json!({ "url": format!("{}/{id}", state.url) }));
    state.repos.insert(id, Repo { private, ..Repo::default() });
    answer
}

/// Weights are large; what a name with `ignored` holds is in the `.gitignore`.
fn preupload(sent: &Value) -> Answer {
    let mode = |file: &Value| {
        let path = text(file, "path");
        let large = path.ends_with(".safetensors") || file["size"].as_u64() > Some(1 << 20);
        let ignored = path.contains("ignored");
        json!({ "path": path, "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": ignored })
    };
    to_json(json!({ "files": list(&sent["files"]).iter().map(mode).collect::<Vec<_>>() }))
}

fn batch(state: &State, sent: &Value) -> Answer {
    let store = state.store.as_ref().map_or(&state.url, |(url, _)| url);
    let upload = |object: &Value| {
        let (oid, size) = (text(object, "oid"), object["size"].as_u64().unwrap_or(0));
        if state.kept(oid).is_some() {
            return json!({ "oid": oid, "size": size });
        }
        let verify = json!({ "href": format!("{}/verify", state.url) });
        let upload = match state.part {
            None => json!({ "href": format!("{store}/blob/{oid}?Signature=signed"), "header": { "X-Store": "test" } }),
            Some(part) => {
                let parts = 1..=size.div_ceil(part as u64);
                let mut header: serde_json::Map<_, _> =
                    parts.map(|i| (i.to_string(), json!(format!("{store}/part/{oid}/{i}")))).collect();
                header.insert("chunk_size".into(), json!(part.to_string()));
                json!({ "href": format!("{}/complete/{oid}", state.url), "header": header })
            }
        };
        json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
    };
    to_json(json!({ "transfer": "basic", "objects": list(&sent["objects"]).iter().map(upload).collect::<Vec<_>>() }))
}

fn commit(state: &mut State, id: &str, revision: &str, body: &[u8]) -> Answer {
    let mut files = match state.repos.get(id) {
        Some(repo) => repo.at(revision).map(|(_, files)| files.clone()).unwrap_or_default(),
        None => return refuse(404, "RepoNotFound"),
    };
    for line in body.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return Answer::new(400, "") };
        let value = &line["value"];
        let path = text(value, "path").to_owned();
        let entry = match text(&line, "key") {
            "file" => STANDARD.decode(text(value, "content")).ok().map(|content| Entry::new(Arc::new(content), false)),
            "lfsFile" => state.kept(text(value, "oid")).map(|content| Entry::new(content, true)),
            _ => continue,
        };
        match entry {
            Some(entry) => files.insert(path, entry),
            None => return Answer::new(400, ""),
        };
    }
    let url = state.url.clone();
    let Some(repo) = state.repos.get_mut(id) else { return refuse(404, "RepoNotFound") };
    let commit = repo.commit(revision, files);
    to_json(json!({ "commitUrl": format!("{url}/{id}/commit/{commit}"), "commitOid": commit }))
}
