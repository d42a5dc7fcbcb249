//! The token goes to the endpoint and to nobody else, and is shown to nobody.

use std::fs;
use std::sync::Mutex;

use sconce_hub::testkit::{Fault, Heard, Server};
use sconce_hub::{Error, Hub, Reference, Settings, Token, Visibility};

const SECRET: &str = "hf_TheSecretOfThisTest";

fn settings(server: &Server, dir: &tempfile::TempDir) -> Settings {
    Settings { token: Token::new(SECRET).unwrap(), ..server.settings(dir.path()) }
}

fn place() -> Reference {
    "hf://a/b".parse().unwrap()
}

fn scene() -> (Server, Server, tempfile::TempDir) {
    let (server, other) = (Server::start().unwrap(), Server::start().unwrap());
    server.store_at(&other);
    server.add("a/b", "config.json", "{}");
    server.add_large("a/b", "weights.safetensors", "weights");
    (server, other, tempfile::tempdir().unwrap())
}

fn authorized(server: &Server) -> Vec<bool> {
    let ours = format!("Bearer {SECRET}");
    server.seen().iter().map(|s| s.header("authorization").is_some_and(|a| a == ours)).collect()
}

#[test]
fn the_token_does_not_follow_to_another_host() {
    let (server, other, dir) = scene();
    let snapshot =
        Hub::new(settings(&server, &dir)).unwrap().fetch(&place(), &|_| true, &mut Heard::default()).unwrap();
    assert_eq!(fs::read_to_string(snapshot.folder.join("weights.safetensors")).unwrap(), "weights");
    assert_eq!(authorized(&server), [true; 4], "the endpoint is given it");
    assert_eq!(other.seen().len(), 1, "the content came from the other host");
    for seen in other.seen() {
        assert!(!format!("{seen:?}").contains(SECRET) && seen.header("authorization").is_none(), "{seen:?}");
    }
}

#[test]
fn a_cut_on_the_other_host_is_taken_up_there() {
    let (server, other, dir) = scene();
    other.fail("/blob/", 1, Fault::Cut(3));
    let hub = Hub::new(settings(&server, &dir)).unwrap();
    hub.fetch(&place(), &|p| p == "weights.safetensors", &mut Heard::default()).unwrap();
    let ranges: Vec<_> = other.seen().iter().map(|s| s.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=3-".to_owned())]);
    assert_eq!(authorized(&other), [false, false]);
}

#[test]
fn what_leads_back_from_another_host_is_not_trusted() {
    let (server, other, dir) = scene();
    let back = format!("{}/api/models/a/b", server.url());
    server.fail("/revision/", 1, Fault::Redirect(format!("{}/hop", other.url())));
    other.fail("/hop", 1, Fault::Redirect(back));
    Hub::new(settings(&server, &dir)).unwrap().files(&place(), &mut Heard::default()).unwrap();
    assert_eq!((authorized(&server), authorized(&other)), (vec![true, false, true], vec![false]));
}

#[test]
fn a_redirect_on_the_endpoint_keeps_it() {
    let (server, _other, dir) = scene();
    server.fail("/revision/", 1, Fault::Redirect("/api/models/a/b".into()));
    Hub::new(settings(&server, &dir)).unwrap().files(&place(), &mut Heard::default()).unwrap();
    assert_eq!(authorized(&server), [true; 3]);
}

#[test]
fn redirects_come_to_an_end() {
    let (server, _other, dir) = scene();
    server.fail("/revision/", 99, Fault::Redirect(format!("{}/api/models/a/b/revision/main", server.url())));
    let error = Hub::new(settings(&server, &dir)).unwrap().files(&place(), &mut Heard::default()).unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
    assert_eq!(server.seen().len(), 6);
    for (to, told) in [("ftp://x/y", "neither https:// nor http://"), ("http://u:p@x/y", "a user's name"), ("", "more")]
    {
        let (server, _other, dir) = scene();
        server.fail("/revision/", 99, Fault::Redirect(to.into()));
        let error = Hub::new(settings(&server, &dir)).unwrap().files(&place(), &mut Heard::default()).unwrap_err();
        assert!(error.to_string().contains(told), "{to}: {error}");
    }
}

/// Keeps what every crate logs.
struct Log(Mutex<String>);

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let mut all = self.0.lock().unwrap();
        *all += &format!("{} {} {}\n", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

static LOG: Log = Log(Mutex::new(String::new()));

#[test]
fn the_token_is_nowhere_to_be_read() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let says = |code: u16| Fault::Status(code, vec![("X-Error-Message", format!("who is Bearer {SECRET}?"))]);
    let hostile = format!(r#"[{{"type":"file","path":"../{SECRET}"}}]"#);
    let no_commit = format!(r#"{{"sha":"{SECRET}"}}"#);
    let mut all = String::new();
    for (part, fault) in [
        ("/api/", says(400)),
        ("/api/", says(401)),
        ("/api/", says(403)),
        ("/api/", says(404)),
        ("/api/", says(503)),
        ("/api/", Fault::Status(429, vec![("Retry-After", SECRET.into())])),
        ("/api/", Fault::Instead(SECRET.into())),
        ("/api/", Fault::Instead(format!("\"{SECRET}\"").into())),
        ("/tree/", Fault::Instead(hostile.into())),
        ("/api/", Fault::Instead(no_commit.into())),
        ("/api/", Fault::Cut(1)),
        ("/api/", Fault::Redirect(format!("http://127.0.0.1:1/{SECRET}"))),
        ("/api/", Fault::Redirect(format!("ftp://{SECRET}/"))),
        ("/api/", Fault::Redirect(format!("http://{SECRET}@x/"))),
        ("/resolve/", says(400)),
        ("/resolve/", Fault::Instead(SECRET.into())),
        ("/resolve/", Fault::Redirect(format!("http://127.0.0.1:1/{SECRET}"))),
        ("/blob/", Fault::Status(403, vec![])),
    ] {
        let (server, other, dir) = scene();
        for server in [&server, &other] {
            server.fail(part, 99, fault.clone());
        }
        let settings = settings(&server, &dir);
        let hub = Hub::new(settings.clone()).unwrap();
        let mut heard = Heard::default();
        let error = hub.fetch(&place(), &|_| true, &mut heard).unwrap_err();
        all += &format!("{error}\n{error:?}\n{heard:?}\n{hub:?}\n{settings:?}\n");
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let files = [("x.safetensors".to_owned(), file)];
        let pushed = hub.push(&place(), &files, "message", Visibility::Public, &mut heard);
        all += &format!("{pushed:?}\n{heard:?}\n");
        if let Err(error) = pushed {
            all += &format!("{error}\n");
        }
    }
    assert!(all.contains("***"), "what a server gave back of it is struck out");
    assert!(!all.contains(SECRET), "{all}");
    let log = LOG.0.lock().unwrap();
    assert!(log.contains("ureq"), "something was logged: {log}");
    assert!(!log.contains(SECRET) && !log.contains("Bearer"), "{log}");
    // The bytes on the wire are logged sixteen to a line, at this level, which is not in the program.
    assert!(!log.contains("TRACE"), "{log}");
}

#[test]
fn without_a_token_nothing_is_authorized() {
    let (server, _other, dir) = scene();
    Hub::new(server.settings(dir.path())).unwrap().fetch(&place(), &|_| true, &mut Heard::default()).unwrap();
    assert!(server.seen().iter().all(|s| s.header("authorization").is_none()));
    let (server, _other, dir) = scene();
    server.fail("/api/", 9, Fault::Status(401, vec![]));
    let error = Hub::new(settings(&server, &dir)).unwrap().files(&place(), &mut Heard::default()).unwrap_err();
    assert!(matches!(error, Error::Refused { status: 401, .. }), "{error}");
    assert!(error.to_string().contains("may have expired"), "{error}");
}

#[test]
fn an_upload_does_not_take_it_along_though_told_to() {
    let (server, other, dir) = scene();
    // `printf x | sha256sum`
    let oid = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let href = format!("{}/blob/{oid}", other.url());
    let header = format!(r#"{{"Authorization":"Bearer {SECRET}","X-Other":"kept"}}"#);
    let upload = format!(r#"{{"upload":{{"href":"{href}","header":{header}}}}}"#);
    let batch = format!(r#"{{"objects":[{{"oid":"{oid}","actions":{upload}}}]}}"#);
    server.fail("/batch", 1, Fault::Instead(batch.into()));
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let hub = Hub::new(settings(&server, &dir)).unwrap();
    let files = [("x.safetensors".to_owned(), file)];
    hub.push(&place(), &files, "message", Visibility::Public, &mut Heard::default()).unwrap();
    let put = &other.seen()[0];
    assert_eq!((put.header("x-other"), put.header("authorization")), (Some("kept"), None));
}
