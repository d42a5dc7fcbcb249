//! The cache on the disk, as the Python client lays it out: `models--owner--name/blobs/<hash>` holds content once,
//! `snapshots/<commit>/` links to it under the files' names, `refs/<revision>` holds a commit. Either program uses what the
//! other has stored.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::listing::{Digest, FileInfo};
use crate::progress::Progress;
use crate::reference::Reference;

/// The part of a cache that belongs to one repository, at one revision.
pub(crate) struct Cache {
    root: PathBuf,
    name: String,
    revision: String,
    repo: hf_hub::CacheRepo,
}

/// What makes a link that holds the first path, at the second.
type Link = fn(&Path, &Path) -> io::Result<()>;

impl Cache {
    pub fn of(root: &Path, place: &Reference) -> Self {
        let repo = place.repo();
        Self {
            root: root.to_owned(),
            name: repo.folder_name(),
            revision: place.revision().to_owned(),
            repo: hf_hub::Cache::new(root.to_owned()).repo(repo),
        }
    }

    /// Where content lies.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.repo.blob_path(digest.hex())
    }

    /// Where content lies while it comes.
    pub fn incomplete(&self, digest: &Digest) -> PathBuf {
        self.repo.blob_path(&format!("{}.incomplete", digest.hex()))
    }

    /// The folder of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    /// Where the commit of the revision is written down.
    pub fn reference(&self) -> PathBuf {
        self.root.join(&self.name).join("refs").join(&self.revision)
    }

    /// Whether a file of a commit is there already, by a link to its blob or as a copy.
    pub fn has(&self, commit: &str, file: &FileInfo) -> bool {
        let at = self.snapshot(commit).join(&file.path);
        let same = match (fs::read_link(&at), &file.digest) {
            (Ok(to), Some(digest)) => to.file_name().is_some_and(|name| name == digest.hex()),
            _ => true,
        };
        same && length(&at) == Some(file.size)
    }

    /// Lets a commit's file be its blob.
    pub fn point(&self, commit: &str, path: &str, digest: &Digest) -> Result<()> {
        self.point_by(symlink, commit, path, digest)
    }

    fn point_by(&self, link: Link, commit: &str, path: &str, digest: &Digest) -> Result<()> {
        let at = self.snapshot(commit).join(path);
        let blob = self.blob(digest);
        let up = path.matches('/').count() + 2;
        let to: PathBuf = std::iter::repeat_n("..", up).chain(["blobs", digest.hex()]).collect();
        atomic(&at, &blob, |tmp| link(&to, tmp).or_else(|_| copy(&blob, tmp)))
    }

    /// Writes down the commit of the revision.
    pub fn write_reference(&self, commit: &str) -> Result<()> {
        let at = self.reference();
        if self.revision == commit || fs::read_to_string(&at).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        atomic(&at, &at, |tmp| {
            let mut file = File::create(tmp)?;
            file.write_all(commit.as_bytes())?;
            file.sync_all()
        })
    }

    /// Holds a blob for this run, until the file is dropped. Waits for another run that holds it.
    pub fn lock(&self, digest: &Digest, file: &str, progress: &mut dyn Progress) -> Result<File> {
        let folder = self.root.join(".locks").join(&self.name);
        let path = folder.join(format!("{}.lock", digest.hex()));
        let open = || {
            fs::create_dir_all(&folder)?;
            OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        };
        let lock = open().map_err(Error::disk(&path, "make the lock"))?;
        let held = match lock.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                progress.notice(&format!("{file}: another run is downloading it; waiting for that"));
                lock.lock()
            }
            Err(TryLockError::Error(e)) => Err(e),
        };
        match held {
            Err(e) if e.kind() == ErrorKind::Unsupported => {
                progress
                    .notice(&format!("{}: locks do not work here; let one run download at a time", folder.display()));
                Ok(lock)
            }
            held => held.map(|()| lock).map_err(Error::disk(&path, "lock")),
        }
    }
}

/// The length of a file; `None` where there is none.
pub(crate) fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len())
}

/// Makes something under another name, beside `near`, and renames it to `at`.
fn atomic(at: &Path, near: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut tmp = near.as_os_str().to_owned();
    tmp.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let tmp = PathBuf::from(tmp);
    let run = || {
        for path in [at, near] {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
        }
        make(&tmp)?;
        fs::rename(&tmp, at)
    };
    run().map_err(|e| {
        let _ = fs::remove_file(&tmp);
        Error::disk(at, "write")(e)
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    OpenOptions::new().write(true).open(to)?.sync_all()
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(windows)]
fn symlink(to: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(to, at)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_links_cannot_be_the_content_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let place: Reference = "hf://a/b".parse().unwrap();
        let cache = Cache::of(dir.path(), &place);
        let (commit, digest) = ("c".repeat(40), Digest::of(&"d".repeat(40)).unwrap());
        let blob = cache.blob(&digest);
        fs::create_dir_all(blob.parent().unwrap()).unwrap();
        fs::write(&blob, "content").unwrap();
        cache.point_by(|_, _| Err(ErrorKind::PermissionDenied.into()), &commit, "x/y", &digest).unwrap();
        let at = cache.snapshot(&commit).join("x/y");
        assert!(fs::symlink_metadata(&at).unwrap().is_file());
        assert_eq!(fs::read_to_string(&at).unwrap(), "content");
        assert!(cache.has(&commit, &FileInfo { path: "x/y".into(), size: 7, digest: Some(digest) }));
        assert_eq!(fs::read_dir(blob.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");
    }
}
