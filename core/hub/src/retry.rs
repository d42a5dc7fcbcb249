//! What is worth another try, and how long to wait for it. A refusal is final; a server that is busy, a connection that
//! breaks and one that never stood may go better.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::settings::Settings;

/// How one try failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection stood.
    Unreachable(String),
    /// One stood and broke, or brought nothing for too long. `gained` bytes of it are kept.
    Cut { why: String, gained: u64 },
    /// The server says that it is busy or ill; `wait` where it says for how long.
    Busy { status: u16, wait: Option<Duration> },
    /// No other try will end otherwise.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// How often, and what must not be done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Whatever failed.
    Freely,
    /// Not when the server may have done it already.
    Unsent,
    /// Never where no connection stands, for there is a way without.
    Reached,
}

/// So many bytes a try must bring not to be counted.
const WORTH: u64 = 1 << 20;

impl Settings {
    /// Tries until it goes, is refused, or has been tried often enough. `url` is for the error.
    pub(crate) fn persist<T>(
        &self,
        url: &str,
        repeat: Repeat,
        progress: &mut dyn Progress,
        mut attempt: impl FnMut(&mut dyn Progress) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut tried = 0;
        loop {
            let failure = match attempt(progress) {
                Ok(done) => return Ok(done),
                Err(Failure::Final(error)) => return Err(error),
                Err(failure) => failure,
            };
            tried = if matches!(failure, Failure::Cut { gained, .. } if gained >= WORTH) { 1 } else { tried + 1 };
            let doubled = self.first_wait.saturating_mul(1 << (tried - 1).min(16)).min(self.longest_wait);
            let (why, wait, reached) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Unreachable(why) if repeat == Repeat::Reached || tried >= self.tries => {
                    return Err(Error::Unreachable { url: url.to_owned(), why });
                }
                Failure::Unreachable(why) => (why, doubled, false),
                Failure::Cut { why, .. } => (why, doubled, true),
                Failure::Busy { status, wait } => {
                    let wait = wait.map_or(doubled, |wait| wait.min(self.longest_wait));
                    // These two say that it was not done; what a gateway says may come after it was.
                    (format!("the server answered {status}"), wait, !matches!(status, 429 | 503))
                }
            };
            if tried >= self.tries || (reached && repeat == Repeat::Unsent) {
                return Err(Error::GaveUp { url: url.to_owned(), tries: tried, why });
            }
            let (next, all) = (tried + 1, self.tries);
            progress.notice(&format!("{url}: {why}; try {next} of {all} in {:.1} s", wait.as_secs_f64()));
            std::thread::sleep(wait);
        }
    }
}
