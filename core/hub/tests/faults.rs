//! What servers, proxies and networks do to a download, and what is said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sconce_hub::testkit::{Fault, Heard, Server};
use sconce_hub::{Error, Hub, Reference, Settings, Snapshot};

const WEIGHTS: &str = "/resolve/";
const BYTES: usize = 300_000;

struct Scene {
    server: Server,
    dir: tempfile::TempDir,
    heard: Heard,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start().unwrap();
        server.add("a/b", "config.json", "{}");
        server.add_large("a/b", "weights.safetensors", content());
        Self { server, dir: tempfile::tempdir().unwrap(), heard: Heard::default() }
    }

    fn failing(part: &str, times: usize, fault: Fault) -> Self {
        let scene = Self::new();
        scene.server.fail(part, times, fault);
        scene
    }

    fn settings(&self) -> Settings {
        self.server.settings(self.dir.path())
    }

    fn fetch(&mut self) -> Result<Snapshot, Error> {
        self.fetch_of("hf://a/b/weights.safetensors")
    }

    fn fetch_of(&mut self, text: &str) -> Result<Snapshot, Error> {
        let place: Reference = text.parse().unwrap();
        Hub::new(self.settings()).unwrap().fetch(&place, &|_| true, &mut self.heard)
    }

    /// Fetches, and the file must be right.
    fn whole(&mut self) {
        let snapshot = self.fetch().unwrap();
        assert!(fs::read(snapshot.folder.join("weights.safetensors")).unwrap() == content());
        assert_eq!(self.blobs().len(), 1, "nothing incomplete is left");
    }

    fn blobs(&self) -> Vec<PathBuf> {
        fs::read_dir(self.dir.path().join("models--a--b/blobs"))
            .map(|d| d.map(|e| e.unwrap().path()).collect())
            .unwrap_or_default()
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let asked = self.server.seen().into_iter().filter(|s| s.target.contains(WEIGHTS));
        asked.map(|s| s.header("range").map(str::to_owned)).collect()
    }
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|i| (i % 251) as u8).collect()
}

fn refused(error: &Error) -> Option<u16> {
    if let Error::Refused { status, .. } = error { Some(*status) } else { None }
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let mut scene = Scene::failing(WEIGHTS, 2, Fault::Cut(100_000));
    scene.whole();
    let ranges = [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())];
    assert_eq!(scene.ranges(), ranges);
    assert_eq!(scene.heard.files, [("weights.safetensors".to_owned(), BYTES as u64, BYTES as u64)]);
    assert_eq!(scene.heard.notices.len(), 2);
    assert!(scene.heard.notices[0].contains("try 2 of 5"), "{:?}", scene.heard.notices);
}

#[test]
fn a_run_goes_on_where_the_last_was_cut() {
    let mut scene = Scene::failing(WEIGHTS, 5, Fault::Cut(10));
    let error = scene.fetch().unwrap_err();
    assert!(matches!(error, Error::GaveUp { tries: 5, .. }), "{error}");
    assert!(error.to_string().contains("what has arrived of a file is kept"), "{error}");
    assert_eq!(fs::metadata(&scene.blobs()[0]).unwrap().len(), 50);
    assert!(!scene.dir.path().join("models--a--b/refs/main").exists());
    scene.whole();
    assert_eq!(scene.ranges().last().unwrap().as_deref(), Some("bytes=50-"));
}

#[test]
fn a_server_without_ranges_starts_over() {
    let mut scene = Scene::failing(WEIGHTS, 1, Fault::Cut(100_000));
    scene.server.fail(WEIGHTS, 1, Fault::WithoutRanges);
    scene.whole();
    assert!(scene.heard.notices.iter().any(|n| n.contains("from the start")), "{:?}", scene.heard.notices);
    assert_eq!(scene.heard.files.last().unwrap().2, BYTES as u64);
}

#[test]
fn a_range_that_begins_elsewhere_is_not_taken() {
    let mut scene = Scene::failing(WEIGHTS, 1, Fault::Cut(100_000));
    scene.server.fail(WEIGHTS, 1, Fault::WrongRange);
    scene.whole();
    assert!(scene.heard.notices.iter().any(|n| n.contains("elsewhere than asked")), "{:?}", scene.heard.notices);
    assert_eq!(scene.ranges().last().unwrap(), &None);
}

#[test]
fn a_stalled_connection_is_left_and_taken_up_again() {
    let mut scene = Scene::failing(WEIGHTS, 1, Fault::Stall(100_000));
    let began = Instant::now();
    scene.whole();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(scene.heard.notices[0].contains("nothing came for 0.2 s"), "{:?}", scene.heard.notices);
    assert_eq!(scene.ranges()[1].as_deref(), Some("bytes=100000-"));
}

#[test]
fn a_stalled_listing_is_asked_for_again() {
    let mut scene = Scene::failing("/api/", 1, Fault::Stall(3));
    scene.whole();
    assert!(scene.heard.notices[0].contains("nothing came"), "{:?}", scene.heard.notices);
}

#[test]
fn damage_is_fetched_once_more() {
    let mut damaged = content();
    damaged[5] ^= 1;
    let mut scene = Scene::failing(WEIGHTS, 1, Fault::Instead(damaged));
    scene.whole();
    assert!(scene.heard.notices[0].contains("arrived damaged"), "{:?}", scene.heard.notices);
    assert_eq!(scene.ranges(), [None, None]);
}

#[test]
fn damage_that_stays_is_told_with_both_hashes() {
    let mut scene = Scene::failing(WEIGHTS, 9, Fault::Instead(vec![1; BYTES]));
    let error = scene.fetch().unwrap_err().to_string();
    // By Python's hashlib, of the content and of as many ones.
    let expected = "3c65ea93424a9c362fec0e3a69ea36031e8a358441479dd665cc6110eabe7b08";
    let found = "f0a1c470ca104347cd08ab760cb2db9d3f9c6ccc7497c21b5a713646d7ec3c41";
    let told = format!("arrived damaged twice: expected SHA-256 {expected}, got SHA-256 {found}");
    assert!(error.contains(&told), "{error}");
    assert!(scene.blobs().is_empty(), "the damaged file is deleted");
    assert_eq!(scene.ranges().len(), 2);

    let mut scene = Scene::failing("config.json", 9, Fault::Instead(b"[]".to_vec()));
    let error = scene.fetch_of("hf://a/b/config.json").unwrap_err().to_string();
    // `printf '{}' | git hash-object --stdin`, `printf '[]' | git hash-object --stdin`
    for hash in ["9e26dfeeb6e641a33dae4961196235bdb965b21b", "0637a088a01e8ddab3bf3fa98dbe804cbde1a0dc"] {
        assert!(error.contains(&format!("git's SHA-1 {hash}")), "{error}");
    }
}

#[test]
fn an_old_part_of_other_content_does_not_stay() {
    let mut scene = Scene::failing(WEIGHTS, 1, Fault::Instead(vec![1; BYTES]));
    scene.server.fail(WEIGHTS, 1, Fault::Cut(0));
    let hash = scene.dir.path().join("models--a--b/blobs");
    let place: Reference = "hf://a/b/weights.safetensors".parse().unwrap();
    let hub = Hub::new(scene.settings()).unwrap();
    let listing = hub.files(&place, &mut scene.heard).unwrap();
    fs::create_dir_all(&hash).unwrap();
    let name = format!("{}.incomplete", listing.files[0].digest.as_ref().unwrap().hex());
    fs::write(hash.join(name), "of another file").unwrap();
    scene.whole();
    assert_eq!(scene.ranges()[0].as_deref(), Some("bytes=15-"));
    assert_eq!(scene.ranges().last().unwrap(), &None);
}

#[test]
fn another_length_is_told() {
    for (other, told) in [(vec![1; 10], "got 10 bytes"), (vec![1; BYTES + 1], "got 300001 bytes")] {
        let mut scene = Scene::failing(WEIGHTS, 9, Fault::Instead(other));
        let error = scene.fetch().unwrap_err().to_string();
        assert!(error.contains("expected 300000 bytes") && error.contains(told), "{error}");
        assert!(scene.blobs().is_empty());
    }
}

#[test]
fn a_file_without_end_is_cut_off() {
    let mut scene = Scene::failing(WEIGHTS, 9, Fault::Endless);
    let error = scene.fetch().unwrap_err().to_string();
    assert!(error.contains("got more than 300000 bytes"), "{error}");
    assert!(scene.blobs().is_empty());
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let scene = Scene::failing("/api/", 9, Fault::Endless);
    let settings = Settings { longest_answer: 1 << 20, ..scene.settings() };
    let place = "hf://a/b".parse().unwrap();
    let error = Hub::new(settings).unwrap().files(&place, &mut Heard::default()).unwrap_err();
    assert!(matches!(error, Error::Answer { .. }) && error.to_string().contains("longer than 1048576"), "{error}");
}

#[test]
fn too_many_requests_wait_as_long_as_asked_within_bounds() {
    for (asked, longest, waited) in [("0", 5000, "in 0.0 s"), ("3600", 30, "in 0.0 s"), ("1", 100, "in 0.1 s")] {
        let scene = Scene::failing("/api/", 1, Fault::Status(429, vec![("Retry-After", asked.to_owned())]));
        let wait = Duration::from_millis(longest);
        let settings = Settings { longest_wait: wait, first_wait: Duration::from_secs(60), ..scene.settings() };
        let mut heard = Heard::default();
        let began = Instant::now();
        Hub::new(settings).unwrap().files(&"hf://a/b".parse().unwrap(), &mut heard).unwrap();
        assert!(heard.notices[0].contains("answered 429") && heard.notices[0].contains(waited), "{heard:?}");
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(asked == "0" || began.elapsed() >= wait);
    }
}

#[test]
fn a_server_that_is_ill_is_asked_five_times() {
    for part in ["/api/", WEIGHTS] {
        let mut scene = Scene::failing(part, 4, Fault::Status(503, vec![]));
        scene.whole();
        assert_eq!(scene.heard.notices.len(), 4);
        let mut scene = Scene::failing(part, 5, Fault::Status(503, vec![]));
        let error = scene.fetch().unwrap_err();
        assert!(matches!(error, Error::GaveUp { tries: 5, .. }), "{error}");
        assert!(error.to_string().contains("the server answered 503"), "{error}");
    }
}

#[test]
fn waits_double() {
    let scene = Scene::failing("/api/", 9, Fault::Status(503, vec![]));
    let (first_wait, longest_wait) = (Duration::from_millis(100), Duration::from_millis(300));
    let settings = Settings { first_wait, longest_wait, ..scene.settings() };
    let mut heard = Heard::default();
    Hub::new(settings).unwrap().files(&"hf://a/b".parse().unwrap(), &mut heard).unwrap_err();
    let waits: Vec<_> = heard.notices.iter().map(|n| n.rsplit_once("in ").unwrap().1).collect();
    assert_eq!(waits, ["0.1 s", "0.2 s", "0.3 s", "0.3 s"]);
}

#[test]
fn refusals_are_told_apart_and_not_tried_again() {
    let code = |code: &str| vec![("X-Error-Code", code.to_owned())];
    let says = |text: &str| vec![("X-Error-Message", text.to_owned())];
    for (status, headers, part, expected) in [
        (401, vec![], "/api/", "a token is needed; set HF_TOKEN"),
        (403, vec![], "/api/", "the token may not do this"),
        (403, says("Ask the owner"), "/api/", "403: `Ask the owner`"),
        (404, vec![], "/api/", "there is no such repository"),
        (401, code("RepoNotFound"), "/api/", "or it is private: then set HF_TOKEN"),
        (404, code("RevisionNotFound"), "/api/", "has no revision `main`"),
        (403, code("GatedRepo"), "/api/", "is gated: accept the licence at http://127.0.0.1"),
        (404, code("EntryNotFound"), WEIGHTS, "there is no file or folder `weights.safetensors`"),
        (404, vec![], WEIGHTS, "there is no file or folder `weights.safetensors`"),
        (418, vec![], WEIGHTS, "the server gives no reason"),
    ] {
        let mut scene = Scene::failing(part, 9, Fault::Status(status, headers));
        let error = scene.fetch().unwrap_err();
        assert!(error.to_string().contains(expected), "{status}: {error}");
        assert_eq!(scene.server.seen().iter().filter(|s| s.target.contains(part)).count(), 1, "{error}");
        assert!(refused(&error).is_none_or(|s| s == status));
    }
}

#[test]
fn what_is_not_there_is_told_with_what_is_like_it() {
    let mut scene = Scene::new();
    let error = scene.fetch_of("hf://a/none").unwrap_err();
    assert!(matches!(error, Error::NoRepository { .. }), "{error}");
    assert!(error.to_string().contains("hf://datasets/a/none"), "{error}");
    let error = scene.fetch_of("hf://a/b@v2").unwrap_err();
    assert!(matches!(error, Error::NoRevision { .. }) && error.to_string().contains("`v2`"), "{error}");
    let error = scene.fetch_of("hf://a/b/weight.safetensor").unwrap_err();
    assert!(matches!(error, Error::NoFile { .. }), "{error}");
    assert!(error.to_string().contains("; there is `weights.safetensors`"), "{error}");
    let error = scene.fetch_of("hf://a/b/zzz").unwrap_err();
    assert!(!error.to_string().contains("there is `"), "{error}");
}

#[test]
fn a_gated_repository_says_where_its_licence_is() {
    let mut scene = Scene::new();
    scene.server.gate("a/b");
    let error = scene.fetch().unwrap_err();
    assert!(matches!(error, Error::Gated { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{}/a/b, then set HF_TOKEN", scene.server.url())), "{error}");
}

#[test]
fn hostile_paths_write_nothing() {
    let listed = |path: &str, size: &str, oid: &str| {
        format!(r#"[{{"type":"file","path":{path:?},"size":{size},"oid":"{oid}"}}]"#)
    };
    let blob = "d".repeat(40);
    for (path, why) in [
        ("../../../evil", "leads elsewhere"),
        ("a/../../evil", "leads elsewhere"),
        ("/etc/evil", "is absolute"),
        ("a//evil", "empty part"),
        ("", "is empty"),
        ("a\\\\..\\\\evil", "backslash"),
        ("C:/evil", "drive letter"),
        ("evil\\u0000", "control character"),
        ("evil\\u001b[2J", "control character"),
    ] {
        let body = listed("PATH", "3", &blob).replace("PATH", path);
        let mut scene = Scene::failing("/tree/", 1, Fault::Instead(body.into_bytes()));
        let error = scene.fetch_of("hf://a/b").unwrap_err();
        assert!(matches!(error, Error::Hostile { .. }), "{path}: {error}");
        assert!(error.to_string().contains(why), "{path}: {error}");
        assert!(path.is_empty() || error.to_string().contains("evil"), "{error}");
        assert!(!error.to_string().contains(['\0', '\u{1b}']), "{error:?}");
        assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 0);
    }
    let one = listed("x", "3", &blob);
    for (part, body) in [
        ("/tree/", listed("x", "3", "../../../../x")),
        ("/tree/", listed("x", "3", &"D".repeat(40))),
        ("/tree/", listed("x", "3", &blob).replace('}', &format!(r#","lfs":{{"oid":"{:/<64}","size":3}}}}"#, ".."))),
        ("/tree/", listed("x", "null", &blob)),
        ("/tree/", listed("x", "-1", &blob)),
        ("/tree/", format!("{},{}", one.trim_end_matches(']'), one.trim_start_matches('['))),
        ("/tree/", "{}".into()),
        ("/tree/", "[".repeat(100_000)),
        ("/revision/", r#"{"sha":"../../x"}"#.into()),
        ("/revision/", "<html>".into()),
    ] {
        let mut scene = Scene::failing(part, 1, Fault::Instead(body.clone().into_bytes()));
        let error = scene.fetch_of("hf://a/b").unwrap_err();
        assert!(matches!(error, Error::Hostile { .. } | Error::Answer { .. }), "{:.200}: {error}", body);
        assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    let scene = Scene::new();
    let file = scene.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let hub = Hub::new(scene.server.settings(&file)).unwrap();
    let error = hub.fetch(&"hf://a/b".parse().unwrap(), &|_| true, &mut Heard::default()).unwrap_err();
    assert!(matches!(&error, Error::Disk { path, .. } if path.starts_with(&file)), "{error}");
}

#[test]
fn an_endpoint_must_be_one() {
    for bad in ["", "hub", "ftp://hub", "https://user:secret@hub", "https://hub?x", "https://"] {
        let error = Hub::new(Settings::new(bad, Path::new("x"))).unwrap_err().to_string();
        assert!(error.starts_with("HF_ENDPOINT: ") && error.contains("https://huggingface.co"), "{error}");
    }
}
