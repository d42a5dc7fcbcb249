//! Answers that are not files: read whole, with an end, and in pages where the Hub gives them so.

use std::io::{ErrorKind, Read};

use serde::de::DeserializeOwned;
use ureq::http::header::LINK;
use ureq::http::{HeaderMap, Uri};

use crate::client::{Ask, Client};
use crate::error::Result;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::retry::{Failure, Repeat};
use crate::web;

/// All pages together may be as long as so many answers.
const PAGES: u64 = 4;

impl Client {
    /// Asks until there is an answer, and reads it whole.
    fn whole<'a>(
        &self,
        place: &Reference,
        repeat: Repeat,
        progress: &mut dyn Progress,
        ask: impl Fn() -> Ask<'a>,
    ) -> Result<(HeaderMap, Vec<u8>)> {
        let url = web::shown(&ask().url);
        self.settings.persist(&self.clean(&url), repeat, progress, |_| {
            let answer = self.once(ask())?;
            if !answer.status().is_success() {
                return Err(self.refusal(place, None, &url, answer));
            }
            let most = self.settings.longest_answer;
            let (parts, body) = answer.into_parts();
            let mut bytes = Vec::new();
            let read = body.into_reader().take(most + 1).read_to_end(&mut bytes);
            read.map_err(|e| Failure::Cut { why: self.broke(&e), gained: 0 })?;
            if bytes.len() as u64 > most {
                return Err(self.strange(&url, format!("the answer is longer than {most} bytes")).into());
            }
            Ok((parts.headers, bytes))
        })
    }

    /// Asks, and what is answered does not matter.
    pub fn done<'a>(
        &self,
        place: &Reference,
        repeat: Repeat,
        progress: &mut dyn Progress,
        ask: impl Fn() -> Ask<'a>,
    ) -> Result<()> {
        self.whole(place, repeat, progress, ask).map(|_| ())
    }

    /// Asks for JSON.
    pub fn json<'a, T: DeserializeOwned>(
        &self,
        place: &Reference,
        repeat: Repeat,
        progress: &mut dyn Progress,
        ask: impl Fn() -> Ask<'a>,
    ) -> Result<T> {
        let (_, bytes) = self.whole(place, repeat, progress, &ask)?;
        self.parsed(&ask().url, &bytes)
    }

    /// Asks for a list in JSON, and for the pages that follow.
    pub fn pages<T: DeserializeOwned>(
        &self,
        place: &Reference,
        repeat: Repeat,
        progress: &mut dyn Progress,
        url: &str,
    ) -> Result<Vec<T>> {
        let most = self.settings.longest_answer.saturating_mul(PAGES);
        let (mut all, mut read, mut url) = (Vec::new(), 0, url.to_owned());
        loop {
            let (headers, bytes) = self.whole(place, repeat, progress, || Ask::get(&url))?;
            all.extend(self.parsed::<Vec<T>>(&url, &bytes)?);
            // An empty page counts, too, lest they go on for ever.
            read += bytes.len() as u64 + 1024;
            if read > most {
                return Err(self.strange(&url, format!("the pages are longer than {most} bytes in all")));
            }
            match next(&url, &headers) {
                Some(next) => url = next,
                None => return Ok(all),
            }
        }
    }

    fn parsed<T: DeserializeOwned>(&self, url: &str, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| self.strange(url, format!("the answer is not as expected: {e}")))
    }

    /// What is said of a connection that brings nothing.
    pub fn stalled(&self) -> String {
        format!("nothing came for {:.1} s", self.settings.stall_timeout.as_secs_f64())
    }

    /// What is said of an answer that stopped coming.
    pub fn broke(&self, error: &std::io::Error) -> String {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<ureq::Error>());
        let timeout = matches!(inner, Some(ureq::Error::Timeout(_)));
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => self.stalled(),
            _ if timeout => self.stalled(),
            _ => self.clean(&format!("the connection broke: {error}")),
        }
    }
}

/// The address of the page after this one.
fn next(url: &str, headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let before = &link[..link.find("rel=\"next\"")?];
    let inner = before[before.rfind('<')? + 1..].split('>').next()?;
    Some(web::join(&url.parse::<Uri>().ok()?, inner))
}
