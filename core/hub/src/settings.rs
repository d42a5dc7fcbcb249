//! Which Hub, which cache, which token, how patient: read from the variables that the Python client reads, so that one
//! login and one cache serve both.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::HeaderValue;

use crate::error::{Error, Result};

/// A token of the Hub. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// From the text, spaces around it aside. `None` where nothing is left; what no header can hold is an error.
    pub fn new(text: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            let why = "is no token: it holds spaces or other letters than those of ASCII; copy it again".into();
            return Err(Error::Setting { name: "HF_TOKEN".into(), why });
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// What goes into the one header. Marked, so that the client's own log leaves it out.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A text of others without the token in it.
    pub(crate) fn struck_from(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }

    pub(crate) fn is_in(&self, text: &str) -> bool {
        text.contains(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a Hub. [`Settings::from_vars`] reads them; tests write them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Hub: scheme, host, and for a mirror perhaps a path.
    pub endpoint: String,
    /// The folder that holds `models--owner--name`.
    pub cache: PathBuf,
    /// Sent to the endpoint's own host and to no other.
    pub token: Option<Token>,
    /// Ask nothing of the network.
    pub offline: bool,
    /// Use the proxy that the environment names.
    pub env_proxy: bool,
    /// How often something is tried that may go better another time.
    pub tries: u32,
    /// The wait before the second try; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait, also where the server asks for more.
    pub longest_wait: Duration,
    /// For a connection to stand.
    pub connect_timeout: Duration,
    /// For a connection that brings nothing.
    pub stall_timeout: Duration,
    /// The most bytes of an answer that is not a file.
    pub longest_answer: u64,
}

impl Settings {
    /// The defaults, at an endpoint and a cache, without token.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            env_proxy: false,
            tries: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            longest_answer: 64 << 20,
        }
    }

    /// From the environment, which `var` reads: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`, `HOME`; `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`; `HF_HUB_OFFLINE`,
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`. An empty one counts as none.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|v| !v.trim().is_empty());
        let home = var("HOME").or_else(|| var("USERPROFILE")).map(PathBuf::from);
        let folder = |name: &str| var(name).map(|v| expand(&v, home.as_deref()));
        let hf_home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|d| d.join("huggingface")))
            .or_else(|| home.as_ref().map(|h| h.join(".cache").join("huggingface")));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|h| h.join("hub")))
            .ok_or_else(|| Error::Setting {
                name: "HF_HOME".into(),
                why: "there is no folder for the cache: set HF_HOME, HF_HUB_CACHE or HOME".into(),
            })?;
        let on = |name: &str| {
            var(name).is_some_and(|v| matches!(v.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let token_file = folder("HF_TOKEN_PATH").or_else(|| hf_home.map(|h| h.join("token")));
        let token = match var("HF_TOKEN").or_else(|| var("HUGGING_FACE_HUB_TOKEN")) {
            _ if on("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            Some(text) => Token::new(&text)?,
            None => token_file.map_or(Ok(None), |file| read_token(&file))?,
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self { token, offline: on("HF_HUB_OFFLINE"), env_proxy: true, ..Self::new(endpoint.trim(), cache) })
    }
}

fn read_token(file: &Path) -> Result<Option<Token>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Token::new(&text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::disk(file, "read the token in it")(e)),
    }
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(&rest[1..]),
        _ => PathBuf::from(path),
    }
}
