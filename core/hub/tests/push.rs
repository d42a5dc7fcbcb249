//! Files to a Hub, in one commit.

use std::fs;
use std::path::PathBuf;

use sconce_hub::testkit::{Fault, Heard, Server};
use sconce_hub::{Error, Hub, Reference, Settings, Token, Visibility};

struct Scene {
    server: Server,
    store: Server,
    dir: tempfile::TempDir,
    heard: Heard,
}

impl Scene {
    fn new() -> Self {
        let (server, store) = (Server::start().unwrap(), Server::start().unwrap());
        server.store_at(&store);
        Self { server, store, dir: tempfile::tempdir().unwrap(), heard: Heard::default() }
    }

    fn settings(&self) -> Settings {
        Settings { token: Token::new("hf_secret").unwrap(), ..self.server.settings(self.dir.path().join("cache")) }
    }

    fn files(&self, files: &[(&str, &[u8])]) -> Vec<(String, PathBuf)> {
        let local = |i: usize| self.dir.path().join(format!("file-{i}"));
        for (i, (_, content)) in files.iter().enumerate() {
            fs::write(local(i), content).unwrap();
        }
        files.iter().enumerate().map(|(i, (path, _))| ((*path).to_owned(), local(i))).collect()
    }

    fn push(&mut self, text: &str, files: &[(&str, &[u8])], visibility: Visibility) -> Result<String, Error> {
        let (place, files): (Reference, _) = (text.parse().unwrap(), self.files(files));
        Hub::new(self.settings()).unwrap().push(&place, &files, "a message", visibility, &mut self.heard)
    }

    fn public(&mut self, files: &[(&str, &[u8])]) -> Result<String, Error> {
        self.push("hf://a/b", files, Visibility::Public)
    }

    fn asked(&self, part: &str) -> usize {
        self.server.seen().iter().filter(|s| s.target.contains(part)).count()
    }
}

#[test]
fn a_push_makes_the_repository_and_one_commit() {
    let mut scene = Scene::new();
    let weights = vec![5; 200_000];
    let files: &[(&str, &[u8])] =
        &[("README.md", b"# hello"), ("unet/w.safetensors", &weights), ("empty.safetensors", b"")];
    let url = scene.push("hf://a/b", files, Visibility::Private).unwrap();
    let commit = scene.server.commit("a/b").unwrap();
    assert_eq!(url, format!("{}/a/b/commit/{commit}", scene.server.url()));
    assert_eq!(scene.server.is_private("a/b"), Some(true));
    for (path, content) in files {
        assert_eq!(scene.server.content("a/b", path).as_deref(), Some(*content), "{path}");
    }
    assert_eq!(scene.asked("/commit/main"), 1);
    let sent = scene.server.seen().into_iter().find(|s| s.target.contains("/commit/")).unwrap();
    assert_eq!(sent.header("content-type"), Some("application/x-ndjson"));
    let text = String::from_utf8(sent.body).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.lines().next().unwrap().contains(r#""summary":"a message""#), "{text}");
    // The large one went to the store, without the token, and was verified.
    let puts = scene.store.seen();
    assert_eq!(puts.len(), 1);
    assert!(puts[0].method == "PUT" && puts[0].header("authorization").is_none(), "{:?}", puts[0].headers);
    assert_eq!(puts[0].header("x-store"), Some("test"));
    assert_eq!(puts[0].header("content-length"), Some("200000"));
    assert_eq!(scene.asked("/verify"), 1);
    assert_eq!(scene.heard.files, [("unet/w.safetensors".to_owned(), 200_000, 200_000)]);
    assert_eq!(scene.heard.ended, 1);

    // What was pushed is what is fetched.
    let hub = Hub::new(scene.settings()).unwrap();
    let snapshot = hub.fetch(&"hf://a/b".parse().unwrap(), &|_| true, &mut Heard::default()).unwrap();
    assert_eq!(snapshot.commit, commit);
    assert_eq!(fs::read(snapshot.folder.join("unet/w.safetensors")).unwrap(), weights);
}

#[test]
fn a_second_push_adds_and_sends_nothing_twice() {
    let mut scene = Scene::new();
    scene.public(&[("w.safetensors", b"weights"), ("a.txt", b"a")]).unwrap();
    scene.public(&[("again/w.safetensors", b"weights"), ("b.txt", b"b")]).unwrap();
    assert_eq!(scene.asked("/api/repos/create"), 1);
    assert_eq!(scene.store.seen().len(), 1, "the store has it already");
    for (path, content) in
        [("w.safetensors", "weights"), ("again/w.safetensors", "weights"), ("a.txt", "a"), ("b.txt", "b")]
    {
        assert_eq!(scene.server.content("a/b", path).as_deref(), Some(content.as_bytes()), "{path}");
    }
}

#[test]
fn a_dataset_and_a_folder_in_it() {
    let mut scene = Scene::new();
    scene
        .push("hf://datasets/a/b@main/train", &[("x.txt", b"x"), ("y.safetensors", b"y")], Visibility::Public)
        .unwrap();
    assert_eq!(scene.server.content("datasets/a/b", "train/x.txt").as_deref(), Some(&b"x"[..]));
    assert_eq!(scene.server.content("datasets/a/b", "train/y.safetensors").as_deref(), Some(&b"y"[..]));
    assert_eq!(scene.server.is_private("datasets/a/b"), Some(false));
}

#[test]
fn large_files_go_in_parts_where_asked() {
    let mut scene = Scene::new();
    scene.server.parts_of(1000);
    let content: Vec<u8> = (0..2500).map(|i| (i % 256) as u8).collect();
    scene.store.fail("/part/", 1, Fault::Status(500, vec![]));
    scene.public(&[("w.safetensors", &content)]).unwrap();
    assert_eq!(scene.server.content("a/b", "w.safetensors"), Some(content));
    let lengths: Vec<_> = scene.store.seen().iter().map(|s| s.body.len()).collect();
    assert_eq!(lengths, [1000, 1000, 1000, 500]);
    assert_eq!(scene.heard.files.last().unwrap().2, 2500);
    assert!(scene.store.seen().iter().all(|s| s.header("authorization").is_none()));
    assert_eq!(scene.asked("/complete/"), 1);
}

#[test]
fn uploads_and_questions_are_tried_again() {
    let mut scene = Scene::new();
    scene.store.fail("/blob/", 2, Fault::Status(503, vec![]));
    scene.server.fail("/preupload/", 1, Fault::Lost);
    scene.server.fail("/batch", 1, Fault::Cut(3));
    scene.server.fail("/api/repos/create", 1, Fault::Lost);
    scene.server.fail("/commit/", 1, Fault::Status(429, vec![("Retry-After", "0".into())]));
    scene.public(&[("w.safetensors", b"weights"), ("a.txt", b"a")]).unwrap();
    assert_eq!(scene.server.content("a/b", "w.safetensors").as_deref(), Some(&b"weights"[..]));
    assert_eq!(scene.store.seen().len(), 3);
}

#[test]
fn a_commit_whose_answer_is_lost_is_not_made_twice() {
    for lost in [Fault::Lost, Fault::Cut(3), Fault::Status(504, vec![])] {
        let mut scene = Scene::new();
        scene.server.fail("/commit/", 1, lost);
        let error = scene.public(&[("a.txt", b"a")]).unwrap_err();
        assert!(error.to_string().contains("/a/b/commits/main"), "{error}");
        assert_eq!(scene.asked("/commit/"), 1);
    }
}

#[test]
fn what_cannot_be_pushed_is_told() {
    let mut scene = Scene::new();
    scene.server.add("a/open", "x", "x");
    let settings = Settings { token: None, ..scene.settings() };
    let files = scene.files(&[("a.txt", b"a")]);
    let place = "hf://a/b".parse().unwrap();
    let hub = Hub::new(settings).unwrap();
    let error = hub.push(&place, &files, "m", Visibility::Public, &mut scene.heard).unwrap_err();
    assert!(matches!(error, Error::NoToken { .. }) && error.to_string().contains("/settings/tokens"), "{error}");
    let hub = Hub::new(Settings { offline: true, ..scene.settings() }).unwrap();
    let error = hub.push(&place, &files, "m", Visibility::Public, &mut scene.heard).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    for (files, told) in [
        (&[][..], "no file is given"),
        (&[("../x", &b"x"[..])][..], "leads elsewhere"),
        (&[("x", &b"x"[..]), ("x", &b"y"[..])][..], "given twice"),
    ] {
        let error = scene.public(files).unwrap_err().to_string();
        assert!(error.contains("cannot push to hf://a/b") && error.contains(told), "{error}");
    }
    let missing = [("x".to_owned(), scene.dir.path().join("none"))];
    let error = Hub::new(scene.settings()).unwrap().push(&place, &missing, "m", Visibility::Public, &mut scene.heard);
    assert!(matches!(error.unwrap_err(), Error::Disk { .. }));
    assert_eq!(scene.server.seen().len(), 0, "nothing was asked until here");

    let error = scene.push("hf://a/open", &[("a.txt", b"a")], Visibility::Private).unwrap_err().to_string();
    assert!(error.contains("everybody can see it"), "{error}");
    let error = scene.push("hf://a/open@v9", &[("a.txt", b"a")], Visibility::Public).unwrap_err();
    assert!(matches!(error, Error::NoRevision { .. }), "{error}");
    scene.server.fail("/batch", 1, Fault::Instead(br#"{"transfer":"xet","objects":[]}"#.to_vec()));
    let error = scene.public(&[("w.safetensors", b"w")]).unwrap_err().to_string();
    assert!(error.contains("`xet`, which this program does not speak"), "{error}");
    assert_eq!(scene.server.content("a/b", "w.safetensors"), None);
}

#[test]
fn what_the_repository_ignores_is_left_out_and_told() {
    let mut scene = Scene::new();
    scene.public(&[("a.txt", b"a"), ("ignored.log", b"x")]).unwrap();
    assert_eq!(scene.server.content("a/b", "ignored.log"), None);
    assert!(scene.heard.notices.iter().any(|n| n.starts_with("ignored.log: left out")), "{:?}", scene.heard);
    let error = scene.public(&[("ignored.log", b"x")]).unwrap_err().to_string();
    assert!(error.contains("names every file"), "{error}");
}
