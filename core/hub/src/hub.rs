//! The Hub as the rest of the program sees it: which files there are, these files on the disk, and a folder's files to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::cache::Cache;
use crate::check;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::listing::{Listing, nearest};
use crate::page;
use crate::progress::Progress;
use crate::reference::{Kind, Reference};
use crate::retry::Repeat;
use crate::settings::Settings;

/// A Hub, and the cache of what came from it.
#[derive(Debug)]
pub struct Hub {
    pub(crate) client: Client,
    /// What commits hold, by their repository: it never changes, and is asked once.
    known: Mutex<HashMap<(Kind, String, String), Listing>>,
}

/// Files of one commit on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub commit: String,
    /// The folder in which the files have their names.
    pub folder: PathBuf,
    /// Those that were wanted, relative to the folder, sorted. It may hold others.
    pub files: Vec<String>,
}

/// Who told of a commit's files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    ByHub,
    ByCache,
}

impl Hub {
    /// A Hub by its settings.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { client: Client::new(settings)?, known: Mutex::default() })
    }

    /// A Hub by the environment: see [`Settings::from_vars`].
    pub fn from_env() -> Result<Self> {
        Self::new(Settings::from_vars(|name| std::env::var(name).ok())?)
    }

    /// The files that a reference names. Offline, or where the Hub is not reached, those in the cache, with a notice.
    pub fn files(&self, place: &Reference, progress: &mut dyn Progress) -> Result<Listing> {
        Ok(self.listing(place, progress)?.0)
    }

    /// The short text at any address, without a token: see [`crate::is_address`].
    ///
    /// # Errors
    /// If it is no address, is not reached, or is longer than a mebibyte or a minute.
    pub fn text(&self, url: &str) -> Result<String> {
        page::text(url, &self.client.settings)
    }

    /// Lets those files that a reference names and `wants` says yes to (of their paths in the repository) be in the cache.
    /// Only what is missing is fetched.
    pub fn fetch(
        &self,
        place: &Reference,
        wants: &dyn Fn(&str) -> bool,
        progress: &mut dyn Progress,
    ) -> Result<Snapshot> {
        let (listing, told) = self.listing(place, progress)?;
        let cache = self.cache(place);
        let wanted: Vec<_> = listing.files.iter().filter(|f| wants(&f.path)).collect();
        if told == Told::ByHub {
            for &file in &wanted {
                let Some(digest) = file.digest.as_ref().filter(|_| !cache.has(&listing.commit, file)) else { continue };
                self.client.obtain(&cache, place, &listing.commit, file, digest, progress).map_err(
                    |error| match error {
                        Error::NoFile { place, file, .. } => {
                            let others = listing.files.iter().map(|f| f.path.as_str()).filter(|&other| other != file);
                            Error::NoFile { nearest: nearest(&file, others), place, file }
                        }
                        other => other,
                    },
                )?;
                cache.point(&listing.commit, &file.path, digest)?;
            }
            cache.write_reference(&listing.commit)?;
        }
        let files = wanted.into_iter().map(|f| f.path.clone()).collect();
        Ok(Snapshot { folder: cache.snapshot(&listing.commit), commit: listing.commit, files })
    }

    fn cache(&self, place: &Reference) -> Cache {
        Cache::of(&self.client.settings.cache, place)
    }

    fn listing(&self, place: &Reference, progress: &mut dyn Progress) -> Result<(Listing, Told)> {
        let at = |commit: &str| (place.kind(), place.id().to_owned(), commit.to_owned());
        if let Some(listing) = self.known.lock().expect("no holder panics").get(&at(place.revision())) {
            return Ok((listing.clone().inside(place)?, Told::ByHub));
        }
        let cache = self.cache(place);
        let known = cache.commit(place.revision());
        let why = if self.client.settings.offline {
            "HF_HUB_OFFLINE is set".to_owned()
        } else {
            let repeat = if known.is_some() { Repeat::Reached } else { Repeat::Freely };
            match self.client.listing(place, repeat, progress) {
                Err(Error::Unreachable { url, why }) if known.is_some() => format!("{url} cannot be reached ({why})"),
                listing => {
                    let listing = listing?;
                    self.known.lock().expect("no holder panics").insert(at(&listing.commit), listing.clone());
                    return Ok((listing.inside(place)?, Told::ByHub));
                }
            }
        };
        let Some(commit) = known else {
            let what = if check::commit(place.revision()) { "this commit" } else { "this revision" };
            let why = format!("{why}, and nothing of {what} was ever fetched; unset it for one run that fetches it");
            return Err(Error::NotCached { place: place.to_string(), cache: self.client.settings.cache.clone(), why });
        };
        let listing = cache.listing(&commit)?;
        progress.notice(&format!(
            "{place}: {why}; taken from the cache, at commit {commit}: the {} files that were fetched of it, which may not be \
             all, nor the newest",
            listing.files.len()
        ));
        Ok((listing.inside(place)?, Told::ByCache))
    }
}
