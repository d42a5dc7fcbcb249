//! What a refusal of the Hub means. One status has several reasons (401 is said of what does not exist, too), and the Hub
//! names the reason in a header.

use std::time::Duration;

use ureq::Body;
use ureq::http::Response;
use ureq::http::header::RETRY_AFTER;

use crate::client::Client;
use crate::error::Error;
use crate::reference::{Kind, Reference};
use crate::retry::Failure;
use crate::web;

impl Client {
    /// The page of a repository that a person looks at.
    pub fn page(&self, place: &Reference) -> String {
        format!("{}/{}", self.endpoint, place.repo().url())
    }

    /// What an answer that is no success means, for a repository or a file of it.
    pub fn refusal(&self, place: &Reference, file: Option<&str>, url: &str, answer: Response<Body>) -> Failure {
        let status = answer.status().as_u16();
        let header = |name: &str| {
            let text = answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
            self.clean(&text.chars().filter(|c| !c.is_control()).take(300).collect::<String>())
        };
        if matches!(status, 408 | 429 | 500..=599) {
            let wait = header(RETRY_AFTER.as_str()).trim().parse().ok().map(Duration::from_secs);
            return Failure::Busy { status, wait };
        }
        let (code, says) = (header("x-error-code"), header("x-error-message"));
        let shown = place.to_string();
        Failure::Final(match (code.as_str(), status, file) {
            ("GatedRepo", ..) => Error::Gated { place: shown, url: self.page(place) },
            ("RevisionNotFound", ..) => Error::NoRevision {
                place: shown,
                revision: place.revision().to_owned(),
                url: format!("{}/tree/main", self.page(place)),
            },
            ("EntryNotFound", _, file) | ("", 404, file @ Some(_)) => {
                Error::NoFile { place: shown, file: file.unwrap_or("").to_owned(), nearest: Vec::new() }
            }
            ("RepoNotFound", ..) | ("", 404, None) => self.no_repository(place),
            (_, 401, _) if self.settings.token.is_none() => {
                let why = "a token is needed; set HF_TOKEN".into();
                Error::Refused { url: self.clean(url), status, why }
            }
            (_, 401, _) => {
                let why = "the token is not accepted; it may have expired: make another, and set HF_TOKEN".into();
                Error::Refused { url: self.clean(url), status, why }
            }
            (_, 403, _) if says.is_empty() => {
                let why = "the token may not do this; its rights are set where it was made".into();
                Error::Refused { url: self.clean(url), status, why }
            }
            _ => {
                let why = if says.is_empty() { "the server gives no reason".into() } else { format!("`{says}`") };
                Error::Refused { url: self.clean(url), status, why }
            }
        })
    }

    fn no_repository(&self, place: &Reference) -> Error {
        let private = match &self.settings.token {
            None => "or it is private: then set HF_TOKEN to a token that may read it",
            Some(_) => "or it is private and the token (HF_TOKEN) may not read it",
        };
        let other = match place.kind() {
            Kind::Model => format!("; a dataset would be hf://datasets/{}", place.id()),
            Kind::Dataset => String::new(),
        };
        let endpoint = web::shown(&self.endpoint);
        Error::NoRepository { place: place.to_string(), endpoint, hint: format!("{private}{other}") }
    }
}
