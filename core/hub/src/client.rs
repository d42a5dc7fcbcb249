//! One request, and where it is led: redirects are followed here, not in the HTTP client, because who is given the token is
//! decided at every one of them.

use std::io::Read;

use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ureq::http::{Method, Request, Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, SendBody};

use crate::error::{Error, Result};
use crate::retry::Failure;
use crate::settings::Settings;
use crate::web::{self, Origin};

const REDIRECTS: usize = 5;

/// What is asked. The token is not part of it.
pub(crate) struct Ask<'a> {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub content: Content<'a>,
}

/// What is sent along.
pub(crate) enum Content<'a> {
    Nothing,
    /// Its type and itself.
    Bytes(&'a str, &'a [u8]),
    /// So many bytes of what can be read once.
    Stream(&'a mut dyn Read, u64),
}

impl Ask<'_> {
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: Method::GET, url: url.into(), headers: Vec::new(), content: Content::Nothing }
    }
}

/// The client of one endpoint.
#[derive(Debug)]
pub(crate) struct Client {
    pub settings: Settings,
    pub endpoint: String,
    origin: Origin,
    agent: Agent,
}

impl Client {
    pub fn new(settings: Settings) -> Result<Self> {
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        let bad = |why: String| Error::Setting {
            name: "HF_ENDPOINT".into(),
            why: format!(
                "`{}` cannot be the Hub: {why}; expected such as https://huggingface.co",
                web::shown(&endpoint)
            ),
        };
        let (uri, origin) = web::parse(&endpoint).map_err(bad)?;
        if uri.query().is_some() || endpoint.contains('#') {
            return Err(bad("it has a query".into()));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if settings.env_proxy { ureq::Proxy::try_from_env() } else { None })
            .accept_encoding("identity")
            .user_agent(concat!("sconce/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .timeout_per_write(Some(settings.stall_timeout))
            .build();
        Ok(Self {
            settings,
            endpoint,
            origin,
            agent: Agent::with_parts(config, DefaultConnector::default(), Names::default()),
        })
    }

    /// Asks once, and follows where it leads. An answer of any status that leads nowhere is `Ok`.
    pub fn once(&self, mut ask: Ask) -> Result<Response<Body>, Failure> {
        let (mut uri, mut origin) = web::parse(&ask.url).map_err(|why| self.strange(&ask.url, why))?;
        if self.origin.secure && !origin.secure {
            return Err(self.strange(&ask.url, "leads from https to http, which is not followed".into()).into());
        }
        let mut own = true; // Once led away it is never trusted again, even where it comes back.
        for _ in 0..=REDIRECTS {
            own &= origin == self.origin;
            let answer = self.send(&uri, own, &mut ask)?;
            let status = answer.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            (uri, origin) = self.follow(&uri, &origin, status, location, &ask.content)?;
        }
        Err(self.strange(&ask.url, format!("more than {REDIRECTS} redirects")).into())
    }

    /// Where a redirect leads, if it may be followed with what was sent.
    fn follow(
        &self,
        uri: &Uri,
        origin: &Origin,
        status: u16,
        location: Option<&str>,
        content: &Content,
    ) -> Result<(Uri, Origin)> {
        let here = |why: String| self.strange(&uri.to_string(), why);
        let location = location.ok_or_else(|| here(format!("answers {status} without a place to go to")))?;
        let next = web::join(uri, location);
        let (to, led) = web::parse(&next).map_err(|why| self.strange(&next, why))?;
        if origin.secure && !led.secure {
            return Err(here(format!("leads from https to http ({}), which is not followed", web::shown(&next))));
        }
        let again = match content {
            Content::Nothing => true,
            Content::Bytes(..) => matches!(status, 307 | 308) && led == *origin,
            Content::Stream(..) => false,
        };
        if again {
            Ok((to, led))
        } else {
            Err(here(format!("answers {status}, and what was sent is not sent elsewhere")))
        }
    }

    fn send(&self, uri: &Uri, own: bool, ask: &mut Ask) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder().method(ask.method.clone()).uri(uri.clone());
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(token) = self.settings.token.as_ref().filter(|_| own).and_then(|t| t.header()) {
            request = request.header(AUTHORIZATION, token);
        }
        let sent = match &mut ask.content {
            Content::Nothing => request.body(()).map(|r| self.agent.run(r)),
            Content::Bytes(kind, bytes) => request.header(CONTENT_TYPE, *kind).body(*bytes).map(|r| self.agent.run(r)),
            Content::Stream(from, bytes) => {
                request.header(CONTENT_LENGTH, *bytes).body(SendBody::from_reader(from)).map(|r| self.agent.run(r))
            }
        };
        let sent = sent.map_err(|e| self.strange(&uri.to_string(), e.to_string()))?;
        sent.map_err(|error| self.failure(&uri.to_string(), error))
    }

    /// What it means that no answer came.
    fn failure(&self, url: &str, error: ureq::Error) -> Failure {
        use std::io::ErrorKind as Kind;
        use ureq::{Error as E, Timeout};
        match error {
            E::HostNotFound => Failure::Unreachable("there is no such host, or no network".into()),
            E::ConnectionFailed => Failure::Unreachable("no connection".into()),
            E::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Failure::Unreachable(format!("no connection in {:.0} s", self.settings.connect_timeout.as_secs_f64()))
            }
            E::Timeout(_) => Failure::Cut { why: self.stalled(), gained: 0 },
            E::Io(e) if matches!(e.kind(), Kind::TimedOut | Kind::WouldBlock) => {
                Failure::Cut { why: self.stalled(), gained: 0 }
            }
            E::Io(e) => match e.kind() {
                Kind::ConnectionRefused | Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                    Failure::Unreachable(e.to_string())
                }
                Kind::AddrNotAvailable | Kind::NotFound => Failure::Unreachable(e.to_string()),
                _ => Failure::Cut { why: format!("the connection broke: {e}"), gained: 0 },
            },
            other => self.strange(url, other.to_string()).into(),
        }
    }

    /// An answer that a Hub would not give, told without the token and without signatures.
    pub fn strange(&self, url: &str, why: String) -> Error {
        Error::Answer { url: self.clean(&web::shown(url)), why: self.clean(&why) }
    }

    /// Words of others without the token in them.
    pub fn clean(&self, text: &str) -> String {
        self.settings.token.as_ref().map_or_else(|| text.to_owned(), |token| token.struck_from(text))
    }
}

/// The system's names of hosts. A name that is not found is told as that, not as any failure of input or output.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0.resolve(uri, config, timeout).map_err(|error| match error {
            ureq::Error::Io(_) => ureq::Error::HostNotFound,
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::Repeat;
    use crate::testkit::Heard;

    fn client(endpoint: &str) -> Client {
        Client::new(Settings { tries: 1, ..Settings::new(endpoint, "nowhere") }).unwrap()
    }

    #[test]
    fn nothing_leads_from_https_to_http() {
        let client = client("https://127.0.0.1:1");
        let asked = client.once(Ask::get("http://127.0.0.1:1/upload"));
        assert!(matches!(asked, Err(Failure::Final(Error::Answer { why, .. })) if why.contains("from https to http")));
        let (uri, origin) = web::parse("https://hub.co/a").unwrap();
        let follow = |to, content| client.follow(&uri, &origin, 302, Some(to), content);
        let error = follow("http://hub.co/a", &Content::Nothing).unwrap_err().to_string();
        assert!(error.contains("from https to http"), "{error}");
        assert!(follow("https://cdn.co/a", &Content::Nothing).is_ok());
        let plain = web::parse("http://hub.co/a").unwrap();
        assert!(client.follow(&plain.0, &plain.1, 302, Some("https://hub.co/a"), &Content::Nothing).is_ok());
    }

    #[test]
    fn what_is_sent_is_sent_again_to_the_same_host_only() {
        let client = client("https://hub.co");
        let (uri, origin) = web::parse("https://hub.co/a").unwrap();
        let bytes = || Content::Bytes("text", b"x");
        for (status, to, goes) in
            [(307, "/b", true), (308, "/b", true), (302, "/b", false), (307, "https://cdn.co/b", false)]
        {
            assert_eq!(client.follow(&uri, &origin, status, Some(to), &bytes()).is_ok(), goes, "{status} {to}");
        }
        let stream = &mut &b"x"[..];
        assert!(client.follow(&uri, &origin, 307, Some("/b"), &Content::Stream(stream, 1)).is_err());
        assert!(client.follow(&uri, &origin, 302, None, &Content::Nothing).is_err());
    }

    #[test]
    fn a_host_without_a_name_is_not_reached() {
        // No label of a name is longer than 63 letters, so that this asks nobody.
        let url = format!("http://{}.invalid", "x".repeat(64));
        let error =
            client(&url).listing(&"hf://a/b".parse().unwrap(), Repeat::Freely, &mut Heard::default()).unwrap_err();
        assert!(matches!(&error, Error::Unreachable { why, .. } if why.contains("no such host")), "{error}");
    }
}
