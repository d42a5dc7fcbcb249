//! What the cache knows of a revision without the Hub: the commit that was written down, and the files of it that were once
//! fetched. That these may be fewer than the repository has is told with the answer.

use std::fs;
use std::path::Path;

use crate::cache::Cache;
use crate::check;
use crate::error::{Error, Result};
use crate::listing::{Digest, FileInfo, Listing};

impl Cache {
    /// The commit of the revision, if a folder of it is there.
    pub fn commit(&self, revision: &str) -> Option<String> {
        let known = match check::commit(revision) {
            true => revision.to_owned(),
            false => fs::read_to_string(self.reference()).ok()?.trim().to_owned(),
        };
        (check::commit(&known) && self.snapshot(&known).is_dir()).then_some(known)
    }

    /// The files of a commit that are there.
    pub fn listing(&self, commit: &str) -> Result<Listing> {
        let mut files = Vec::new();
        walk(&self.snapshot(commit), "", &mut files)?;
        files.sort_by(|a: &FileInfo, b| a.path.cmp(&b.path));
        Ok(Listing { commit: commit.to_owned(), files })
    }
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<FileInfo>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::disk(folder, "list"))? {
        let entry = entry.map_err(Error::disk(folder, "list"))?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        let at = entry.path();
        if entry.file_type().map_err(Error::disk(&at, "look at"))?.is_dir() {
            walk(&at, &format!("{name}/"), files)?;
        } else if let Some(size) = crate::cache::length(&at) {
            // A link whose blob is gone is no file of the cache.
            let link = fs::read_link(&at).ok();
            let digest = link.and_then(|to| Digest::of(to.file_name()?.to_str()?));
            files.push(FileInfo { path: name, size, digest });
        }
    }
    Ok(())
}
