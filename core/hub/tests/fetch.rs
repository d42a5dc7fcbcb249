//! Files from a Hub into the cache: which, where, and not twice.

use std::fs;
use std::path::Path;

use sconce_hub::testkit::{Fault, Heard, Server};
use sconce_hub::{Digest, Error, Hub, Reference, Settings};

fn hub(server: &Server, cache: &Path) -> Hub {
    Hub::new(server.settings(cache)).unwrap()
}

fn place(text: &str) -> Reference {
    text.parse().unwrap()
}

fn model() -> Server {
    let server = Server::start().unwrap();
    server.add("a/b", "model_index.json", "{}");
    server.add("a/b", "unet/config.json", "{\"channels\": 4}");
    server.add_large("a/b", "unet/weights.safetensors", vec![7; 300_000]);
    server.add_large("a/b", "unet/weights.fp16.safetensors", vec![8; 1000]);
    server
}

fn downloads(server: &Server) -> usize {
    server.seen().iter().filter(|s| s.target.contains("/resolve/")).count()
}

#[test]
fn a_listing_has_lengths_and_hashes() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let listing = hub(&server, dir.path()).files(&place("hf://a/b"), &mut Heard::default()).unwrap();
    assert_eq!(Some(listing.commit), server.commit("a/b"));
    let told: Vec<_> = listing.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    let expected = [
        ("model_index.json", 2),
        ("unet/config.json", 15),
        ("unet/weights.fp16.safetensors", 1000),
        ("unet/weights.safetensors", 300_000),
    ];
    assert_eq!(told, expected);
    // `printf '{}' | git hash-object --stdin`
    let git = Digest::Git("9e26dfeeb6e641a33dae4961196235bdb965b21b".into());
    assert_eq!(listing.files[0].digest, Some(git));
    assert!(matches!(&listing.files[3].digest, Some(Digest::Sha256(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a listing writes nothing");
}

#[test]
fn a_long_listing_comes_in_pages() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    server.pages_of(2);
    let listing = hub(&server, dir.path()).files(&place("hf://a/b"), &mut Heard::default()).unwrap();
    assert_eq!(listing.files.len(), 4);
    assert_eq!(server.seen().iter().filter(|s| s.target.contains("/tree/")).count(), 3, "a folder is an entry, too");
    // Pages that never end do.
    server.pages_of(0);
    let settings = Settings { longest_answer: 1 << 13, ..server.settings(dir.path()) };
    let error = Hub::new(settings).unwrap().files(&place("hf://a/b"), &mut Heard::default()).unwrap_err().to_string();
    assert!(error.contains("the pages are longer than 32768 bytes in all"), "{error}");
}

#[test]
fn what_is_wanted_comes_into_the_layout_of_python() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let mut heard = Heard::default();
    let wants = |path: &str| !path.contains("fp16");
    let snapshot = hub(&server, dir.path()).fetch(&place("hf://a/b"), &wants, &mut heard).unwrap();
    assert_eq!(snapshot.files, ["model_index.json", "unet/config.json", "unet/weights.safetensors"]);
    let repo = dir.path().join("models--a--b");
    assert_eq!(snapshot.folder, repo.join("snapshots").join(&snapshot.commit));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), snapshot.commit);
    assert_eq!(fs::read(snapshot.folder.join("unet/weights.safetensors")).unwrap(), vec![7; 300_000]);
    assert!(!snapshot.folder.join("unet/weights.fp16.safetensors").exists());
    let blob = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
    assert_eq!(fs::read_to_string(repo.join("blobs").join(blob)).unwrap(), "{}");
    #[cfg(unix)]
    {
        let link = fs::read_link(snapshot.folder.join("model_index.json")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(blob));
        let deep = fs::read_link(snapshot.folder.join("unet/config.json")).unwrap();
        assert!(deep.starts_with("../../../blobs"), "{deep:?}");
    }
    assert!(dir.path().join(".locks/models--a--b").join(format!("{blob}.lock")).exists());
    assert_eq!(fs::read_dir(repo.join("blobs")).unwrap().count(), 3, "nothing incomplete is left");
    assert_eq!((heard.files.len(), heard.ended, heard.notices.len()), (3, 3, 0));
    assert!(heard.files.iter().all(|(_, bytes, came)| bytes == came), "{heard:?}");
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    let first = hub.fetch(&place("hf://a/b"), &|p| p.ends_with(".json"), &mut Heard::default()).unwrap();
    assert_eq!(downloads(&server), 2);
    assert_eq!(hub.fetch(&place("hf://a/b"), &|p| p.ends_with(".json"), &mut Heard::default()).unwrap(), first);
    assert_eq!(downloads(&server), 2);
    // Another commit that shares a file: only what is new is fetched, the rest is linked.
    server.add("a/b", "new.json", "new");
    let second = hub.fetch(&place("hf://a/b"), &|p| p.ends_with(".json"), &mut Heard::default()).unwrap();
    assert_ne!(first.commit, second.commit);
    assert_eq!(downloads(&server), 3);
    assert_eq!(fs::read_to_string(second.folder.join("model_index.json")).unwrap(), "{}");
}

#[test]
fn a_blob_of_another_length_is_fetched_again() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    let snapshot = hub.fetch(&place("hf://a/b"), &|p| p == "model_index.json", &mut Heard::default()).unwrap();
    let file = snapshot.folder.join("model_index.json");
    fs::write(fs::canonicalize(&file).unwrap(), "{").unwrap();
    hub.fetch(&place("hf://a/b"), &|p| p == "model_index.json", &mut Heard::default()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "{}");
}

#[test]
#[cfg(unix)]
fn a_link_to_other_content_is_set_right() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    server.add("a/b", "other.json", "[]");
    let hub = hub(&server, dir.path());
    let snapshot =
        hub.fetch(&place("hf://a/b"), &|p| p.ends_with("x.json") || p == "other.json", &mut Heard::default());
    let folder = snapshot.unwrap().folder;
    let (one, other) = (folder.join("model_index.json"), folder.join("other.json"));
    fs::remove_file(&one).unwrap();
    std::os::unix::fs::symlink(fs::read_link(other).unwrap(), &one).unwrap();
    assert_eq!(fs::read_to_string(&one).unwrap(), "[]");
    hub.fetch(&place("hf://a/b"), &|p| p == "model_index.json", &mut Heard::default()).unwrap();
    assert_eq!(fs::read_to_string(&one).unwrap(), "{}");
}

#[test]
fn a_reference_may_name_a_file_a_folder_a_revision_a_dataset() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    server.branch("a/b", "refs/pr/1");
    let old = server.commit("a/b").unwrap();
    server.add("a/b", "later.txt", "later");
    server.add("datasets/a/b", "metadata.jsonl", "{}");
    let hub = hub(&server, dir.path());
    let all = |text: &str| hub.fetch(&place(text), &|_| true, &mut Heard::default()).unwrap();
    assert_eq!(all("hf://a/b/unet/config.json").files, ["unet/config.json"]);
    assert_eq!(all("hf://a/b/unet").files.len(), 3);
    let branch = all("hf://a/b@refs%2Fpr%2F1/model_index.json");
    assert_eq!(branch.commit, old);
    assert_eq!(fs::read_to_string(dir.path().join("models--a--b/refs/refs/pr/1")).unwrap(), old);
    assert_eq!(all(&format!("hf://a/b@{old}/model_index.json")).commit, old);
    assert!(!dir.path().join("models--a--b/refs").join(&old).exists(), "a commit needs no reference");
    assert!(all("hf://datasets/a/b").folder.starts_with(dir.path().join("datasets--a--b")));
}

#[test]
fn without_a_network_the_cache_answers_and_says_so() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let settings = server.settings(dir.path());
    let (text, json) = (place("hf://a/b"), |p: &str| p.ends_with(".json"));
    let mut heard = Heard::default();
    let fetched = Hub::new(settings.clone()).unwrap().fetch(&text, &json, &mut heard).unwrap();
    assert!(heard.notices.is_empty());
    let asked = server.seen().len();

    let offline = Hub::new(Settings { offline: true, ..settings.clone() }).unwrap();
    assert_eq!(offline.fetch(&text, &json, &mut heard).unwrap(), fetched);
    assert_eq!(server.seen().len(), asked, "nothing is asked");
    assert_eq!(heard.notices.len(), 1);
    assert!(heard.notices[0].contains("HF_HUB_OFFLINE") && heard.notices[0].contains("2 files"), "{heard:?}");
    let listing = offline.files(&text, &mut heard).unwrap();
    assert_eq!(listing.files[0].digest, Some(Digest::Git("9e26dfeeb6e641a33dae4961196235bdb965b21b".into())));
    let error = offline.files(&place("hf://a/other"), &mut heard).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }) && error.to_string().contains("unset it"), "{error}");
    let error = offline.files(&place("hf://a/b@v2"), &mut heard).unwrap_err();
    assert!(matches!(error, Error::NotCached { .. }), "{error}");
    let error = offline.files(&place("hf://a/b/model_index.jsn"), &mut heard).unwrap_err();
    assert!(error.to_string().contains("there is `model_index.json`"), "{error}");

    // What is no commit leads nowhere.
    let main = dir.path().join("models--a--b/refs/main");
    for bad in ["../snapshots", "", "../../../.."] {
        fs::write(&main, bad).unwrap();
        let error = offline.files(&text, &mut heard).unwrap_err();
        assert!(matches!(error, Error::NotCached { .. }), "{bad}: {error}");
    }
    fs::write(&main, format!("{}\n", fetched.commit)).unwrap();

    drop(server);
    let mut heard = Heard::default();
    let unreached = Hub::new(settings.clone()).unwrap();
    assert_eq!(unreached.fetch(&text, &json, &mut heard).unwrap(), fetched);
    assert_eq!(heard.notices.len(), 1);
    assert!(heard.notices[0].contains("cannot be reached"), "{heard:?}");
    let error = unreached.files(&place("hf://a/other"), &mut heard).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn two_runs_do_not_fetch_one_file_twice() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    std::thread::scope(|scope| {
        let run = || hub.fetch(&place("hf://a/b/unet/weights.safetensors"), &|_| true, &mut Heard::default()).unwrap();
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        for run in runs {
            let folder = run.join().unwrap().folder;
            assert_eq!(fs::metadata(folder.join("unet/weights.safetensors")).unwrap().len(), 300_000);
        }
    });
    assert_eq!(downloads(&server), 1);
}

#[test]
fn a_lock_that_another_holds_is_waited_for() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let blob = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
    let locks = dir.path().join(".locks/models--a--b");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join(format!("{blob}.lock"))).unwrap();
    lock.lock().unwrap();
    let mut heard = Heard::default();
    std::thread::scope(|scope| {
        let run =
            scope.spawn(|| hub(&server, dir.path()).fetch(&place("hf://a/b/model_index.json"), &|_| true, &mut heard));
        while server.seen().is_empty() {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(downloads(&server), 0);
        lock.unlock().unwrap();
        run.join().unwrap().unwrap();
    });
    assert!(heard.notices[0].contains("another run"), "{heard:?}");
}

#[test]
fn what_python_left_incomplete_goes_on() {
    let (server, dir) = (model(), tempfile::tempdir().unwrap());
    let hub = hub(&server, dir.path());
    let listing = hub.files(&place("hf://a/b/unet/weights.safetensors"), &mut Heard::default()).unwrap();
    let blobs = dir.path().join("models--a--b/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let hash = listing.files[0].digest.as_ref().unwrap().hex();
    for (have, range) in [(100_000, Some("bytes=100000-")), (300_001, None)] {
        let _ = fs::remove_file(blobs.join(hash));
        fs::write(blobs.join(format!("{hash}.incomplete")), vec![7; have]).unwrap();
        hub.fetch(&place("hf://a/b/unet/weights.safetensors"), &|_| true, &mut Heard::default()).unwrap();
        let last = server.seen().pop().unwrap();
        assert_eq!(last.header("range"), range);
        assert_eq!(fs::read(blobs.join(hash)).unwrap(), vec![7; 300_000]);
    }
    // A whole one needs no request at all.
    fs::rename(blobs.join(hash), blobs.join(format!("{hash}.incomplete"))).unwrap();
    server.fail("/resolve/", 1, Fault::Status(500, vec![]));
    hub.fetch(&place("hf://a/b/unet/weights.safetensors"), &|_| true, &mut Heard::default()).unwrap();
    assert!(blobs.join(hash).exists());
}
