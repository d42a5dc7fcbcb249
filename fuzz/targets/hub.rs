//! Any answer of a server that says it is the Hub: nothing outside the cache is written.
#![no_main]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sconce_hub::{Hub, Progress, Settings};

static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

struct Nobody;

impl Progress for Nobody {
    fn begin(&mut self, _: &str, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn notice(&mut self, _: &str) {}
}

/// Gives each request the next of the answers.
fn hub() -> &'static Hub {
    static HUB: OnceLock<Hub> = OnceLock::new();
    HUB.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    line.clear();
                }
                let mut answers = ANSWERS.lock().expect("no holder panics");
                let answer = if answers.is_empty() { b"HTTP/1.1 404 Gone\r\n\r\n".to_vec() } else { answers.remove(0) };
                drop(answers);
                let mut stream = reader.into_inner();
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.take(0).read(&mut []);
            }
        });
        let settings = Settings {
            tries: 1,
            first_wait: Duration::ZERO,
            longest_wait: Duration::ZERO,
            stall_timeout: Duration::from_secs(2),
            ..Settings::new(format!("http://{address}"), sconce_fuzz::folder().join("hub"))
        };
        Hub::new(settings).expect("a hub")
    })
}

fuzz_target!(|data: &[u8]| {
    let hub = hub();
    // Answers part at a byte that no text has.
    *ANSWERS.lock().expect("no holder panics") = data.split(|b| *b == 0xff).take(6).map(<[u8]>::to_vec).collect();
    let place = "hf://a/b".parse().expect("a reference");
    let _ = hub.fetch(&place, &|_| true, &mut Nobody);
    let outside: Vec<_> = std::fs::read_dir(sconce_fuzz::folder()).expect("the folder").flatten().collect();
    assert!(outside.iter().all(|e| e.file_name() == "hub"), "{outside:?}");
    let _ = std::fs::remove_dir_all(sconce_fuzz::folder().join("hub"));
});
