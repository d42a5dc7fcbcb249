//! HTTP as far as the Hub of the tests needs it: one request a connection, and faults where the bytes go out.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::state::State;
use super::{Fault, answers, lock};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET` and such.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// What was sent along.
    pub body: Vec<u8>,
}

impl Seen {
    /// A header's value; its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// An answer before faults.
pub(super) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Only the range that was asked for, where one was.
    fn ranged(self, seen: &Seen, shift: usize) -> Self {
        let first =
            seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let whole = self.body.len();
        match first {
            Some(first) if self.status == 200 && first >= whole => Self::new(416, ""),
            Some(first) if self.status == 200 => {
                let first = first - shift.min(first);
                let range = format!("bytes {first}-{}/{whole}", whole - 1);
                let body = self.body[first..].to_vec();
                Self { status: 206, body, ..self }.with("Content-Range", range)
            }
            _ => self,
        }
    }
}

pub(super) fn serve(stream: TcpStream, state: &Mutex<State>, stop: &AtomicBool) -> io::Result<()> {
    let Some(seen) = read(&stream)? else { return Ok(()) };
    let (fault, answer) = {
        let mut state = lock(state);
        state.seen.push(seen.clone());
        let fault = state.fault(&seen.target);
        // What is refused is not done.
        let answer = match &fault {
            Some(Fault::Status(status, headers)) => {
                Answer { status: *status, headers: headers.clone(), body: Vec::new() }
            }
            Some(Fault::Redirect(to)) => Answer::new(302, "").with("Location", to.as_str()),
            _ => answers::answer(&mut state, &seen),
        };
        (fault, answer)
    };
    let shift = usize::from(matches!(fault, Some(Fault::WrongRange)));
    let answer = match &fault {
        Some(Fault::WithoutRanges) => answer,
        Some(Fault::Instead(body)) => Answer { body: body.clone(), ..answer }.ranged(&seen, 0),
        Some(Fault::Lost) => return stream.shutdown(Shutdown::Both),
        _ => answer.ranged(&seen, shift),
    };
    write(&stream, answer, fault, seen.method == "HEAD", stop)?;
    stream.shutdown(Shutdown::Both)
}

fn read(stream: &TcpStream) -> io::Result<Option<Seen>> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut seen = Seen { method, target, headers, body: Vec::new() };
    let bytes = seen.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    from.take(bytes).read_to_end(&mut seen.body)?;
    Ok(Some(seen))
}

fn write(mut out: &TcpStream, answer: Answer, fault: Option<Fault>, head: bool, stop: &AtomicBool) -> io::Result<()> {
    let mut top = format!("HTTP/1.1 {} Test\r\nConnection: close\r\n", answer.status);
    if !matches!(fault, Some(Fault::Endless)) {
        top += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        top += &format!("{name}: {value}\r\n");
    }
    out.write_all((top + "\r\n").as_bytes())?;
    if head {
        return Ok(());
    }
    match fault {
        Some(Fault::Cut(bytes)) => out.write_all(&answer.body[..bytes.min(answer.body.len())]),
        Some(Fault::Stall(bytes)) => {
            out.write_all(&answer.body[..bytes.min(answer.body.len())])?;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        }
        Some(Fault::Endless) => {
            out.write_all(&answer.body)?;
            while !stop.load(Ordering::Relaxed) {
                out.write_all(&[b' '; 1 << 14])?;
            }
            Ok(())
        }
        _ => out.write_all(&answer.body),
    }
}
