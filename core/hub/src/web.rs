//! Addresses: where one leads, whether two lead to one server, and what of one may be shown. The token goes by this.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one part of a path.
pub(crate) fn encode(part: &str) -> String {
    utf8_percent_encode(part, KEPT).to_string()
}

/// A path of a repository as one of a URL.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// Scheme, host and port: what a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Of an address; `Err` says why it has none.
    pub fn of(uri: &Uri) -> Result<Self, &'static str> {
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it begins with neither https:// nor http://"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user's name or password");
        }
        if authority.host().is_empty() {
            return Err("it names no host");
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { secure, host: authority.host().to_ascii_lowercase(), port })
    }
}

/// Parses a whole address.
pub(crate) fn parse(url: &str) -> Result<(Uri, Origin), String> {
    let uri: Uri = url.parse().map_err(|e| format!("not an address: {e}"))?;
    let origin = Origin::of(&uri)?;
    Ok((uri, origin))
}

/// Where a `Location` leads from an address.
pub(crate) fn join(base: &Uri, location: &str) -> String {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |a| a.as_str());
    let colon = location.find(':').unwrap_or(usize::MAX);
    if colon < location.find(['/', '?', '#']).unwrap_or(usize::MAX) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let path = base.path();
        let folder = &path[..path.rfind('/').map_or(0, |i| i + 1)];
        format!("{scheme}://{authority}{folder}{location}")
    }
}

/// An address as it may be shown: without its query, which may be signed.
pub(crate) fn shown(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    url[..end].chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url: &str| parse(url).map(|(_, origin)| origin);
        assert_eq!(of("https://hub.co/a").unwrap(), of("https://HUB.co:443/b?c").unwrap());
        for other in ["http://hub.co", "https://hub.co:444", "https://hub.co.evil.org", "https://evil.org/hub.co"] {
            assert_ne!(of("https://hub.co").unwrap(), of(other).unwrap(), "{other}");
        }
        for bad in ["ftp://hub.co", "hub.co", "https://hub.co@evil.org/", "https://", "/a"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_location_may_be_relative() {
        let base: Uri = "https://hub.co/a/b?c=1".parse().unwrap();
        for (location, to) in [
            ("http://cdn.co/x", "http://cdn.co/x"),
            ("//cdn.co/x", "https://cdn.co/x"),
            ("/x?y=/z:1", "https://hub.co/x?y=/z:1"),
            ("x", "https://hub.co/a/x"),
        ] {
            assert_eq!(join(&base, location), to);
        }
    }

    #[test]
    fn a_signature_is_not_shown() {
        assert_eq!(shown("https://cdn.co/x?Signature=secret"), "https://cdn.co/x");
    }
}
