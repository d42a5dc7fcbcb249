//! The environment, as a function of what the variables say.

use std::path::Path;

use sconce_hub::{Result, Settings};

fn with(vars: &[(&str, &str)]) -> Result<Settings> {
    Settings::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

#[test]
fn the_cache_is_where_python_has_it() {
    let all = [
        ("HF_HUB_CACHE", "/one"),
        ("HUGGINGFACE_HUB_CACHE", "/two"),
        ("HF_HOME", "/three"),
        ("XDG_CACHE_HOME", "/four"),
        ("HOME", "/five"),
    ];
    let expected = ["/one", "/two", "/three/hub", "/four/huggingface/hub", "/five/.cache/huggingface/hub"];
    for (i, cache) in expected.into_iter().enumerate() {
        assert_eq!(with(&all[i..]).unwrap().cache, Path::new(cache));
    }
    assert_eq!(with(&[("HF_HOME", "~/x"), ("HOME", "/h")]).unwrap().cache, Path::new("/h/x/hub"));
    assert!(with(&[]).unwrap_err().to_string().contains("set HF_HOME"));
}

#[test]
fn the_endpoint_and_being_offline() {
    let home = ("HOME", "/nowhere");
    let plain = with(&[home, ("HF_ENDPOINT", "")]).unwrap();
    assert_eq!((plain.endpoint.as_str(), plain.offline, plain.token), ("https://huggingface.co", false, None));
    assert_eq!(with(&[home, ("HF_ENDPOINT", "http://mirror:81")]).unwrap().endpoint, "http://mirror:81");
    for (value, offline) in [("1", true), ("on", true), ("Yes", true), ("TRUE", true), ("0", false), ("no", false)] {
        assert_eq!(with(&[home, ("HF_HUB_OFFLINE", value)]).unwrap().offline, offline, "{value}");
    }
}

#[test]
fn the_token_is_found_and_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let home = ("HF_HOME", dir.path().to_str().unwrap());
    let token = |vars: &[(&str, &str)]| with(&[&[home], vars].concat()).unwrap().token;
    let named = |text: &str| sconce_hub::Token::new(text).unwrap();
    assert_eq!(token(&[]), None);
    std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
    assert_eq!(token(&[]), named("hf_file"));
    let other = dir.path().join("other");
    std::fs::write(&other, "hf_other").unwrap();
    assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]), named("hf_other"));
    assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]), named("hf_old"));
    assert_eq!(token(&[("HF_TOKEN", " hf_new "), ("HUGGING_FACE_HUB_TOKEN", "hf_old")]), named("hf_new"));
    assert_eq!(token(&[("HF_TOKEN", "hf_new"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    let settings = with(&[home, ("HF_TOKEN", "hf_new")]).unwrap();
    assert!(!format!("{settings:?}").contains("hf_new"), "{settings:?}");
    let error = with(&[home, ("HF_TOKEN", "hf new\u{7}")]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("new"), "{error}");
}
