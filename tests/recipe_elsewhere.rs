//! Recipes of strangers: what one from elsewhere may say, and the error that each attack gets.

#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use run::Bench;

/// A server on this machine that has these texts by their paths.
struct Server {
    url: String,
    texts: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let texts: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
        let known = texts.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let (mut line, mut path) = (String::new(), String::new());
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    if let Some(rest) = line.strip_prefix("GET ") {
                        path = rest.split(' ').next().unwrap_or_default().to_owned();
                    }
                    line.clear();
                }
                let answer = match known.lock().expect("no holder panics").get(&path) {
                    Some(text) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()),
                    None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let _ = reader.into_inner().write_all(answer.as_bytes());
            }
        });
        Self { url, texts }
    }

    fn put(&self, path: &str, text: &str) -> String {
        self.texts.lock().expect("no holder panics").insert(path.to_owned(), text.to_owned());
        format!("{}{path}", self.url)
    }
}

const GOOD: &str = "[model]\npath = \"embedded:quickstart\"\n[optimizer]\ntype = \"adamw\"\nlr = 1e-3\n[data]\nbatch = 2\n[train]\nimages = 2\n\
                    [adapter]\ntype = \"lora\"\nrank = 2\n";

#[test]
fn a_recipe_at_an_address_runs_with_ones_own_pictures() {
    let server = Server::start();
    server.put("/base.toml", GOOD);
    let address = server.put("/recipes/style.toml", "extends = \"../base.toml\"\n");
    let bench = Bench::new("");
    // `..` stays within no folder.
    let output = bench.sconce(&["check", &address]).output().expect("the program starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("`../base.toml` is a place of this machine"));
    let address = server.put("/style.toml", "extends = \"base.toml\"\n[train]\nimages = 4\n");
    let run = ["train", &address, "--set", "data.path=pictures", "--out", "run"];
    let output = bench.sconce(&run).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(bench.path("run/lora-peft.safetensors").is_file());
    // The resolved recipe of the run stands by itself.
    let output = bench.sconce(&["train", "run/recipe.toml", "--out", "again"]).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_a_strangers_recipe_may_not_say_is_refused_by_name() {
    let server = Server::start();
    let bench = Bench::new("");
    let secret = bench.path("recipe.toml").display().to_string();
    for (number, (more, field, why)) in [
        (format!("[output]\ndir = {secret:?}\n"), "output.dir", "where things are written"),
        ("[output]\ndir = \"runs\"\n".to_owned(), "output.dir", "where things are written"),
        ("[data]\ncache = \"/tmp/cache\"\n".to_owned(), "data.cache", "where things are written"),
        (format!("[model]\npath = {secret:?}\n"), "model.path", "a place of this machine"),
        ("[model]\npath = \"~/models\"\n".to_owned(), "model.path", "no folder to fetch from"),
        ("[model.files]\nvae = \"/etc/passwd\"\n".to_owned(), "model.files.vae", "a place of this machine"),
        ("[[data.source]]\npath = \"../../home\"\n".to_owned(), "data.source.0.path", "a place of this machine"),
        ("[[data.source]]\npath = \"C:\\\\Users\"\n".to_owned(), "data.source.0.path", "a place of this machine"),
        ("[[data.source]]\npath = \"file:///etc\"\n".to_owned(), "data.source.0.path", "a place of this machine"),
        (
            "[schedule]\ntype = \"discrete\"\nfile = \"/etc/passwd\"\n".to_owned(),
            "schedule.file",
            "a place of this machine",
        ),
        ("[train]\nadapter_from = \"/etc/passwd\"\n".to_owned(), "train.adapter_from", "a place of this machine"),
        (
            "[[train.token]]\ntext = \"x\"\nfrom = \"/etc/passwd\"\n".to_owned(),
            "train.token.0.from",
            "a place of this machine",
        ),
        ("[preview]\nautoencoder = \"/etc\"\n".to_owned(), "preview.autoencoder", "a place of this machine"),
        (format!("extends = {secret:?}\n"), "extends", "a place of this machine"),
        ("extends = \"http://example.com/x.toml\"\n".to_owned(), "extends", "not over https"),
        ("extends = \"nowhere.toml\"\n".to_owned(), "extends", "404"),
        ("plugin = \"evil.so\"\n".to_owned(), "plugin", "unknown field"),
        ("[needs]\nsconce = \">=99\"\n".to_owned(), "needs.sconce", "for sconce >=99"),
        ("[[needs.plugin]]\nname = \"evil\"\n".to_owned(), "needs.plugin.0", "sconce build --with evil"),
    ]
    .into_iter()
    .enumerate()
    {
        let address = server.put(&format!("/attack{number}.toml"), &more);
        let output = bench.sconce(&["check", &address]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{more}: {said}");
        assert!(said.contains(&format!("`{field}`")) && said.contains(why), "{more}: {said}");
    }
}

#[test]
fn recipes_without_end_end() {
    let server = Server::start();
    let bench = Bench::new("");
    let check = |recipe: &str| {
        let output = bench.sconce(&["check", recipe]).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    server.put("/a.toml", "extends = \"b.toml\"\n");
    let circle = server.put("/b.toml", "extends = \"a.toml\"\n");
    assert!(check(&circle).contains("in a circle"));
    for i in 0..20 {
        let next = format!("extends = \"deep{}.toml\"\n", i + 1);
        std::fs::write(bench.path(&format!("deep{i}.toml")), &next).expect("a recipe");
        server.put(&format!("/deep{i}.toml"), &next);
    }
    assert!(check("deep0.toml").contains("more than 16 recipes"));
    assert!(check(&format!("{}/deep0.toml", server.url)).contains("more than 16 recipes"));
    let huge = server.put("/huge.toml", &format!("a = \"{}\"\n", "x".repeat(2 << 20)));
    assert!(check(&huge).contains("longer than"));
    std::fs::write(bench.path("huge.toml"), "#".repeat(2 << 20)).expect("a file");
    assert!(check("huge.toml").contains("longer than"));
    std::fs::write(bench.path("noise.toml"), [0xff, 0xfe, 0x00]).expect("a file");
    assert!(check("noise.toml").contains("no text in UTF-8"));
    #[cfg(unix)]
    assert!(check("/dev/zero").contains("longer than"));
}
