//! Everything that can go wrong between a recipe's `hf://` and files on the disk, each with what to do about it. No text
//! here ever holds the token: URLs are cut at their query, and words of a server are cleaned where they come in.

use std::path::PathBuf;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no reference.
    #[error(
        "`{text}` names nothing on the Hub: {why}. Write hf://owner/name, hf://owner/name@revision/file, or hf://datasets/owner/name"
    )]
    Reference {
        /// As it was written.
        text: String,
        /// The part that is wrong.
        why: String,
    },
    /// An environment variable or a setting cannot be used.
    #[error("{name}: {why}")]
    Setting {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The repository's licence was not accepted by the token's account.
    #[error("{place} is gated: accept the licence at {url}, then set HF_TOKEN to a token of the account that did")]
    Gated {
        /// The reference.
        place: String,
        /// Where the licence is.
        url: String,
    },
    /// There is no such repository, or it is not shown to this token.
    #[error("{place}: there is no such repository at {endpoint}, {hint}")]
    NoRepository {
        /// The reference.
        place: String,
        /// The Hub that was asked.
        endpoint: String,
        /// What else it may be.
        hint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{place}: the repository has no revision `{revision}`; its branches and tags are listed at {url}")]
    NoRevision {
        /// The reference.
        place: String,
        /// What was asked for.
        revision: String,
        /// Where a person can look.
        url: String,
    },
    /// The revision has no such file.
    #[error("{place}: there is no file or folder `{file}`{}", near(.nearest))]
    NoFile {
        /// The reference.
        place: String,
        /// What was asked for.
        file: String,
        /// The names most like it, best first.
        nearest: Vec<String>,
    },
    /// The server refuses for another reason.
    #[error("{url} answers {status}: {why}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the server says, or what the status means.
        why: String,
    },
    /// The server was never reached.
    #[error("{url} cannot be reached: {why}. Look at the network, HF_ENDPOINT and the proxy")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What the connection met.
        why: String,
    },
    /// Every try failed.
    #[error(
        "{url}: given up after {tries} tries, the last of which ended with: {why}. Try again later: what has arrived of a file is kept"
    )]
    GaveUp {
        /// What was asked.
        url: String,
        /// How many tries.
        tries: u32,
        /// How the last one ended.
        why: String,
    },
    /// The server's answer is not one of the Hub.
    #[error("{url}: {why}. Is the endpoint (HF_ENDPOINT) a Hub?")]
    Answer {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The server names a file that would not lie in the cache.
    #[error("{place}: the server lists a file called {path:?}, which {why}. Nothing was written")]
    Hostile {
        /// The reference.
        place: String,
        /// The path, as the server wrote it.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What arrived is not what the listing promised, twice.
    #[error(
        "{place}: `{file}` arrived damaged twice: expected {expected}, got {found}. The download was deleted; a proxy or mirror in between may alter files"
    )]
    Damaged {
        /// The reference.
        place: String,
        /// The file.
        file: String,
        /// Its length or hash, as listed.
        expected: String,
        /// Its length or hash, as it came.
        found: String,
    },
    /// The cache has not what was asked for, and the Hub is not asked.
    #[error("{place} is not in the cache {}: {why}", .cache.display())]
    NotCached {
        /// The reference.
        place: String,
        /// The cache's folder.
        cache: PathBuf,
        /// Why the Hub was not asked, and what to do.
        why: String,
    },
    /// A push without a token.
    #[error(
        "pushing to {place} needs a token that may write: make one at {endpoint}/settings/tokens and set HF_TOKEN (HF_HUB_DISABLE_IMPLICIT_TOKEN keeps it from being used)"
    )]
    NoToken {
        /// The reference.
        place: String,
        /// The Hub.
        endpoint: String,
    },
    /// A push that cannot be.
    #[error("cannot push to {place}: {why}")]
    Push {
        /// The reference.
        place: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The disk.
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err` on what the disk says.
    pub(crate) fn disk(path: impl Into<PathBuf>, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { path, doing, source }
    }
}

fn near(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    if quoted.is_empty() { String::new() } else { format!("; there is {}", quoted.join(", ")) }
}
