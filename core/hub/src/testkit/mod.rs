//! For tests, here and in the program: a Hub on the loopback that holds repositories in memory and fails on command. It
//! speaks enough of the protocol for this crate and for the Python client, writes down what it was asked, and knows
//! nothing of the code that it tests.

mod answers;
mod state;
mod taking;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::progress::Progress;
use crate::settings::Settings;
use state::State;
pub use wire::Seen;

/// What goes wrong with an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection closes after so many bytes of the content.
    Cut(usize),
    /// Nothing comes after so many bytes of the content, and the connection stays.
    Stall(usize),
    /// The content never ends, and its length is not told.
    Endless,
    /// A range is answered with the whole.
    WithoutRanges,
    /// A range is answered with one that begins elsewhere.
    WrongRange,
    /// Other content.
    Instead(Vec<u8>),
    /// It is somewhere else.
    Redirect(String),
    /// What was asked is done, and the answer is lost.
    Lost,
}

/// A Hub on the loopback. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one, on a port that is free.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::new(format!("http://{address}"))));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, ends) = (state.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (state, ends) = (shared.clone(), ends.clone());
                // What breaks here broke for the client, too, which says so.
                std::thread::spawn(move || stream.and_then(|stream| wire::serve(stream, &state, &ends)));
            }
        });
        Ok(Self { address, state, stop, thread: Some(thread) })
    }

    /// Its address: the endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Settings for it, as impatient as tests are: waits of a millisecond, a stall after a fifth of a second.
    pub fn settings(&self, cache: impl Into<PathBuf>) -> Settings {
        Settings {
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(5),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_millis(200),
            ..Settings::new(self.url(), cache)
        }
    }

    /// Adds a small file to a repository's `main` (`owner/name`, or `datasets/owner/name`), which is made where it is not.
    pub fn add(&self, repo: &str, path: &str, content: impl Into<Vec<u8>>) {
        self.state().add(repo, path, content.into(), false);
    }

    /// Adds a file that goes by LFS.
    pub fn add_large(&self, repo: &str, path: &str, content: impl Into<Vec<u8>>) {
        self.state().add(repo, path, content.into(), true);
    }

    /// Gives the commit of `main` another name.
    pub fn branch(&self, repo: &str, name: &str) {
        self.state().branch(repo, name);
    }

    /// Asks everybody to accept a licence first.
    pub fn gate(&self, repo: &str) {
        self.state().gate(repo);
    }

    /// Lets this fail, so many times, for addresses that contain the text. Those that were told first fail first.
    pub fn fail(&self, address: &str, times: usize, fault: Fault) {
        self.state().faults.push((address.to_owned(), times, fault));
    }

    /// Lets large files come from, and go to, another server.
    pub fn store_at(&self, other: &Self) {
        self.state().store = Some((other.url(), other.state.clone()));
    }

    /// Lets uploads go in parts of so many bytes.
    pub fn parts_of(&self, bytes: usize) {
        self.state().part = Some(bytes);
    }

    /// Lets listings come in pages of so many files.
    pub fn pages_of(&self, files: usize) {
        self.state().page = Some(files);
    }

    /// The commit of `main`.
    pub fn commit(&self, repo: &str) -> Option<String> {
        self.state().head(repo)
    }

    /// Whether there is such a repository, and only its owner sees it.
    pub fn is_private(&self, repo: &str) -> Option<bool> {
        self.state().repos.get(repo).map(|r| r.private)
    }

    /// A file of `main`.
    pub fn content(&self, repo: &str, path: &str) -> Option<Vec<u8>> {
        self.state().content(repo, path)
    }

    /// What it was asked so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes down what a transfer tells.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Every notice.
    pub notices: Vec<String>,
    /// Of every file that began, its name, its size, and the bytes that came since.
    pub files: Vec<(String, u64, u64)>,
    /// How many files came to their end.
    pub ended: usize,
}

impl Progress for Heard {
    fn begin(&mut self, file: &str, bytes: u64) {
        self.files.push((file.to_owned(), bytes, 0));
    }

    fn advance(&mut self, bytes: u64) {
        if let Some((_, _, came)) = self.files.last_mut() {
            *came += bytes;
        }
    }

    fn end(&mut self) {
        self.ended += 1;
    }

    fn notice(&mut self, text: &str) {
        self.notices.push(text.to_owned());
    }
}
