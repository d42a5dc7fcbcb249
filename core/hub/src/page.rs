//! A short text at any address: a recipe that someone shares. No token goes along, it has an end in bytes and in time, and it
//! comes over https, but for servers on this machine.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::client::{Ask, Client};
use crate::error::{Error, Result};
use crate::retry::Failure;
use crate::settings::Settings;
use crate::web;

/// The longest text.
const MOST: u64 = 1 << 20;
/// The longest that all of it may take.
const LONGEST: Duration = Duration::from_secs(60);

/// Whether a text means to be such an address.
pub fn is_address(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// The text at an address.
///
/// # Errors
/// If it is no address, is not reached, is longer than a mebibyte, takes longer than a minute, or is no UTF-8.
pub(crate) fn text(url: &str, settings: &Settings) -> Result<String> {
    within(url, settings, MOST, LONGEST)
}

fn within(url: &str, settings: &Settings, most: u64, longest: Duration) -> Result<String> {
    let shown = web::shown(url);
    let strange = |why: String| Error::Answer { url: shown.clone(), why };
    let (uri, origin) = web::parse(url).map_err(strange)?;
    let host = uri.host().unwrap_or_default();
    if !origin.secure && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        return Err(strange("is not over https, so that anyone on the way could change it".into()));
    }
    if settings.offline {
        return Err(Error::Unreachable { url: shown, why: "HF_HUB_OFFLINE is set".into() });
    }
    let endpoint = format!("{}://{}", uri.scheme_str().unwrap_or("https"), uri.authority().map_or("", |a| a.as_str()));
    let client = Client::new(Settings { token: None, endpoint, ..settings.clone() })?;
    let began = Instant::now();
    let failed = |failure: Failure| match failure {
        Failure::Unreachable(why) => Error::Unreachable { url: shown.clone(), why },
        Failure::Cut { why, .. } => strange(why),
        Failure::Final(error) => error,
        other => strange(format!("{other:?}")),
    };
    let answer = client.once(Ask::get(url)).map_err(failed)?;
    if !answer.status().is_success() {
        return Err(strange(format!("the server answers {}", answer.status().as_u16())));
    }
    let mut reader = answer.into_body().into_reader();
    let (mut bytes, mut part) = (Vec::new(), [0; 8192]);
    loop {
        let read = reader.read(&mut part).map_err(|e| strange(client.broke(&e)))?;
        bytes.extend_from_slice(&part[..read]);
        if read == 0 {
            break;
        }
        if bytes.len() as u64 > most {
            return Err(strange(format!("the answer is longer than {most} bytes")));
        }
        if began.elapsed() > longest {
            return Err(strange(format!("the answer does not end in {:.0} s", longest.as_secs_f64())));
        }
    }
    String::from_utf8(bytes).map_err(|_| strange("the answer is no text in UTF-8".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// A server that gives every request what `answer` writes.
    fn server(answer: fn(&mut dyn Write) -> std::io::Result<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/recipe.toml", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    line.clear();
                }
                let _ = answer(&mut reader.into_inner());
            }
        });
        url
    }

    fn ask(url: &str) -> Result<String> {
        let settings =
            Settings { stall_timeout: Duration::from_millis(400), ..Settings::new("http://127.0.0.1:1", "nowhere") };
        within(url, &settings, 1000, Duration::from_millis(300))
    }

    #[test]
    fn a_text_comes_whole_and_nothing_else_does() {
        let good = server(|to| to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
        assert_eq!(ask(&good).unwrap(), "hello");
        for (url, needle) in [
            (server(|to| to.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")), "404"),
            (server(|to| to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff")), "UTF-8"),
            (
                server(|to| {
                    to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                    loop {
                        to.write_all(&[b'x'; 512])?;
                    }
                }),
                "longer than",
            ),
            (
                server(|to| {
                    to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                    loop {
                        to.write_all(b"x")?;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }),
                "does not end",
            ),
            (
                server(|to| to.write_all(b"HTTP/1.1 302 Go\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")),
                "redirects",
            ),
            ("http://example.com/recipe.toml".to_owned(), "https"),
            ("http://127.0.0.1:1/recipe.toml".to_owned(), "reached"),
        ] {
            let said = ask(&url).unwrap_err().to_string();
            assert!(said.contains(needle), "{needle}: {said}");
        }
    }
}
