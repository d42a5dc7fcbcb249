//! Which paths, names and hashes of others may become names on this disk. Every word of a server or a recipe that does
//! passes here first.

/// Why a path inside a repository cannot be used; `None` where it can.
pub(crate) fn path(path: &str) -> Option<&'static str> {
    let drive = |part: &str| part.as_bytes().get(1) == Some(&b':') && part.as_bytes()[0].is_ascii_alphabetic();
    if path.is_empty() {
        return Some("is empty");
    }
    if path.starts_with('/') {
        return Some("is absolute");
    }
    if path.contains('\\') {
        return Some("has a backslash");
    }
    if path.chars().any(char::is_control) {
        return Some("has a control character");
    }
    for part in path.split('/') {
        match part {
            "" => return Some("has an empty part"),
            "." | ".." => return Some("leads elsewhere (`.` or `..`)"),
            part if drive(part) || (cfg!(windows) && part.contains(':')) => return Some("has a drive letter"),
            part if part.len() > 255 => return Some("has a part longer than 255 bytes"),
            _ => {}
        }
    }
    None
}

/// Why a branch, tag or commit cannot be one; `None` where it can. The rules are those of `git check-ref-format`.
pub(crate) fn revision(name: &str) -> Option<&'static str> {
    if let Some(why) = path(name) {
        return Some(why);
    }
    if name.contains("..") || name.contains("@{") {
        return Some("has `..` or `@{`");
    }
    if name.contains(|c: char| c.is_whitespace() || "~^:?*[".contains(c)) {
        return Some("has a space or one of ~ ^ : ? * [");
    }
    name.split('/').any(|p| p.starts_with('.') || p.ends_with(".lock")).then_some("is no name for a branch or tag")
}

/// Why an owner's or repository's name cannot be one; `None` where it can.
pub(crate) fn name(name: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        return Some("is empty");
    }
    if name.contains(|c| !allowed(c)) {
        return Some("may hold letters, digits, `-`, `_` and `.`");
    }
    if name.contains("--") || name.contains("..") {
        return Some("may not hold `--` or `..`");
    }
    if name.starts_with(['-', '.']) || name.ends_with(['-', '.']) {
        return Some("may not begin or end with `-` or `.`");
    }
    (name.len() > 96).then_some("is longer than 96 letters")
}

/// Whether a text is so many hexadecimal digits, none of them a capital.
pub(crate) fn hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a commit.
pub(crate) fn commit(text: &str) -> bool {
    hex(text, 40)
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_stay_inside() {
        for good in ["a", "a/b.safetensors", "a b/c", ".gitattributes", "..a/b..", "unet/model (1).bin"] {
            assert_eq!(super::path(good), None, "{good}");
        }
        let long = "x".repeat(256);
        for bad in
            ["", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a\\b", "C:/a", "c:", "a/d:x", "a\0b", "a\nb", &long]
        {
            assert!(super::path(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn revisions_are_names_of_git() {
        for good in ["main", "refs/pr/1", "v1.0", "fp16", "0123456789abcdef0123456789abcdef01234567"] {
            assert_eq!(super::revision(good), None, "{good}");
        }
        for bad in ["", "a b", "a..b", "../x", "/x", "x.lock", ".x", "a~1", "a^", "a:b", "a\u{7f}", "a@{1}"] {
            assert!(super::revision(bad).is_some(), "{bad:?}");
        }
    }
}
