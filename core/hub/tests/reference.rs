//! What `hf://` may name, and what is said of what it may not.

use sconce_hub::{Kind, Reference};

#[test]
fn references_are_read_and_written() {
    for (text, kind, id, revision, path) in [
        ("hf://a/b", Kind::Model, "a/b", "main", None),
        ("hf://stabilityai/sd-xl_1.0@fp16", Kind::Model, "stabilityai/sd-xl_1.0", "fp16", None),
        ("hf://a/b@refs%2Fpr%2F1/unet/x.safetensors", Kind::Model, "a/b", "refs/pr/1", Some("unet/x.safetensors")),
        ("hf://a/b/two%20words.bin", Kind::Model, "a/b", "main", Some("two words.bin")),
        ("hf://a/b/x@y", Kind::Model, "a/b", "main", Some("x@y")),
        ("hf://datasets/a/b@v1/c", Kind::Dataset, "a/b", "v1", Some("c")),
    ] {
        let place: Reference = text.parse().unwrap();
        assert_eq!((place.kind(), place.id(), place.revision(), place.path()), (kind, id, revision, path), "{text}");
        assert_eq!(place.to_string().parse::<Reference>().unwrap(), place, "{text}");
    }
    for text in ["hf://a/b", "hf://a/b@refs%2Fpr%2F1/c", "hf://datasets/a/b@x/c%20d"] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_malformed_is_told() {
    for (text, part) in [
        ("", "does not begin with hf://"),
        ("a/b", "does not begin with hf://"),
        ("hf://", "an owner and a name"),
        ("hf://a", "an owner and a name"),
        ("hf:///b", "the owner `` is empty"),
        ("hf://a/", "the name `` is empty"),
        ("hf://a/b@", "the revision \"\" is empty"),
        ("hf://a/b/", "the file \"\" is empty"),
        ("hf://a/b//c", "the file \"/c\" is absolute"),
        ("hf://a/b/c//d", "has an empty part"),
        ("hf://../b", "may not hold"),
        ("hf://a/b/../c", "leads elsewhere"),
        ("hf://a/b/%2e%2e/c", "leads elsewhere"),
        ("hf://a/b/c%2F..%2F..%2Fd", "leads elsewhere"),
        ("hf://a/b/%2Fetc", "is absolute"),
        ("hf://a/b@..%2F..%2Fx", "leads elsewhere"),
        ("hf://a/b/c\\d", "backslash"),
        ("hf://a/b/c%5Cd", "backslash"),
        ("hf://a/b/C:/d", "drive letter"),
        ("hf://a/b c", "a space or a control character"),
        ("hf://a/b/c d", "a space or a control character"),
        ("hf://a/b\n", "a space or a control character"),
        ("hf://a/b/%00", "a control character"),
        ("hf://a/b/%ff", "is not UTF-8"),
        ("hf://a/b@x%20y", "has a space"),
        ("hf://a--b/c", "may not hold `--`"),
        ("hf://ä/b", "may hold letters"),
        ("hf://spaces/a/b", "`spaces` is no owner"),
        ("hf://models/a/b", "`models` is no owner"),
        ("hf://datasets/a", "an owner and a name"),
    ] {
        let error = text.parse::<Reference>().expect_err(text).to_string();
        assert!(error.contains(part), "{text:?}: {error}");
        assert!(!error.contains('\n') && error.contains("Write hf://owner/name"), "{error}");
    }
}

#[test]
fn a_commit_pins_a_reference() {
    let place: Reference = "hf://datasets/a/b@main/c".parse().unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    assert_eq!(place.pinned(commit).unwrap().to_string(), format!("hf://datasets/a/b@{commit}/c"));
    for bad in ["", "main", "0123", "../../../../../../../../../../../../../x"] {
        assert!(place.pinned(bad).unwrap_err().to_string().contains("is no commit"), "{bad}");
    }
}
