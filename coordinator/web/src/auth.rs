//! Authentication of callers: NIP-98 for pages and API, kind 24242 (BUD-11) for blobs alone.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, Method, StatusCode, header, request::Parts},
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use nostr::{Event, JsonUtil, PublicKey, ToBech32};
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    Refusal, Web, links, reader_session,
    request_limits::Client,
    spent_signatures::{NotTaken, Share, Signature},
};
use connections::client_address::ClientAddress;
use domain::id::BlobHash;
use store::Reader;

/// Seconds by which a request's clock may differ from ours (NIP-98 suggests 60).
const SKEW: u64 = 60;
/// Kind of a Blossom token (BUD-11).
const TOKEN: u16 = 24242;
/// Longest header that is read, in bytes.
const LONGEST: usize = 16 * 1024;

const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

/// What a signature is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Something that few may do, and that this caller may.
    Decides,
    /// Everybody may.
    BeginsSession,
}

/// The caller of a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// 64 hex; `None`: nobody signed.
    pub(super) key: Option<String>,
    /// SHA-256 of the body that was signed for, hex.
    payload: Option<String>,
    /// The signature, where the request does more than read, and its time in Unix seconds.
    signature: Option<(Signature, ClientAddress)>,
    signed_at: u64,
    /// Which runs it may read.
    pub(super) reader: Reader,
}

impl Caller {
    fn new(web: &Web, key: Option<String>) -> Self {
        let reader = match &key {
            None => Reader::Anyone,
            Some(key) if web.settings.operators.contains(key) => Reader::Operator,
            Some(key) => Reader::Key(key.clone()),
        };
        Self { key, payload: None, signature: None, signed_at: 0, reader }
    }

    /// The key, if the signature covers this body: one that covers the URL alone could be replayed with another body.
    pub(super) fn signed_with(&self, body: &[u8]) -> Result<&str, Refusal> {
        let key = self.signed()?;
        let hash = hex::encode(Sha256::digest(body));
        match self.payload.as_ref().is_some_and(|signed| signed.eq_ignore_ascii_case(&hash)) {
            true => Ok(key),
            false => Err(unauthorized("the signature does not cover the body: add its SHA-256 as `payload` (NIP-98)")),
        }
    }

    /// Id and time (Unix seconds) of the event by which a request that does more than read was signed: they order it
    /// among others.
    pub(super) fn signing(&self) -> Result<(String, u64), Refusal> {
        let (signature, _) =
            self.signature.as_ref().ok_or_else(|| unauthorized("sign the request (NIP-98, kind 27235)"))?;
        Ok((signature.id.to_hex(), self.signed_at))
    }

    /// Uses the signature for an action: each is good once. To be called when all that may refuse the action was asked:
    /// only what decides something is remembered.
    pub(super) fn spend(&self, web: &Web, action: Action) -> Result<(), Refusal> {
        let Some((signature, client)) = &self.signature else {
            return Err(unauthorized("sign the request (NIP-98, kind 27235)"));
        };
        let share = match (self.reader == Reader::Operator, action) {
            (true, _) => Share::Operators,
            (false, Action::Decides) => Share::Actions,
            (false, Action::BeginsSession) => Share::Sessions,
        };
        web.spent.spend(*signature, *client, share, ((web.settings.now)() / 1000, 2 * SKEW)).map_err(not_taken)
    }

    /// The key; an error if the request is not signed.
    pub(super) fn signed(&self) -> Result<&str, Refusal> {
        self.key.as_deref().ok_or_else(|| unauthorized("sign the request (NIP-98, kind 27235)"))
    }
}

impl FromRequestParts<Web> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Refusal> {
        match event(&parts.headers)? {
            Some(event) if event.kind.as_u16() == TOKEN => Err(unauthorized(
                "a Blossom token (kind 24242) opens blobs and nothing else: sign this request (NIP-98, kind 27235)",
            )),
            Some(event) => Self::signer(web, parts, &event),
            None => Self::unsigned(web, parts),
        }
    }
}

impl Caller {
    /// The signer of a request (NIP-98).
    fn signer(web: &Web, parts: &Parts, event: &Event) -> Result<Self, Refusal> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", web.settings.public_url.as_str().trim_end_matches('/'));
        let now = (web.settings.now)() / 1000;
        let problem = if event.kind.as_u16() != 27235 {
            Some("its kind is not 27235".to_owned())
        } else if event.created_at.as_secs().abs_diff(now) > SKEW {
            Some(format!("its time differs from ours by more than {SKEW} s"))
        } else if tag(event, "u") != Some(url.as_str()) {
            Some(format!("its `u` is not {url}"))
        } else if !tag(event, "method").is_some_and(|method| method.eq_ignore_ascii_case(parts.method.as_str())) {
            Some(format!("its `method` is not {}", parts.method))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(unauthorized(&format!("the request's signature does not count: {problem}")));
        }
        let reads = parts.method == Method::GET || parts.method == Method::HEAD;
        let signature = (!reads).then(|| (Signature { id: event.id, key: event.pubkey }, Client::of(parts).0));
        let payload = tag(event, "payload").map(str::to_owned);
        let signed_at = event.created_at.as_secs();
        Ok(Self { payload, signature, signed_at, ..Self::new(web, Some(event.pubkey.to_hex())) })
    }

    /// The reader of a session or of a link, or nobody.
    fn unsigned(web: &Web, parts: &Parts) -> Result<Self, Refusal> {
        let session = reader_session::reader(web, parts);
        if let Some(key) = session.map_err(|why| unauthorized(&format!("the session does not count: {why}")))? {
            return Ok(Self::new(web, Some(key)));
        }
        let followed = links::reader(web, parts);
        let over = || unauthorized("the link's time is over: open the run's page again and follow it from there");
        Ok(Self::new(web, followed.map_err(|()| over())?))
    }
}

fn not_taken(why: NotTaken) -> Refusal {
    match why {
        NotTaken::Used => unauthorized("the request's signature was used before: sign each request anew"),
        NotTaken::TooMany => {
            let reason = "this key, or your address, signed too many requests: wait two minutes";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(120)
        }
        NotTaken::Full => {
            let reason = "too many signed requests at a time: wait two minutes";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(120)
        }
    }
}

/// Who reads blobs: a caller as everywhere, or who shows a token (BUD-11).
#[derive(Debug)]
pub(super) enum BlobReader {
    Caller(Caller),
    Token(Box<Event>),
}

impl FromRequestParts<Web> for BlobReader {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Refusal> {
        match event(&parts.headers)? {
            Some(event) if event.kind.as_u16() == TOKEN => Ok(Self::Token(Box::new(event))),
            _ => Caller::from_request_parts(parts, web).await.map(Self::Caller),
        }
    }
}

impl BlobReader {
    /// The caller, for one blob. A token has to name the blob (`x`) and this server: one that was made for another server
    /// opens nothing here.
    pub(super) fn of_blob(self, web: &Web, sha256: &BlobHash) -> Result<Caller, Refusal> {
        self.with_token(web, "get", |token| {
            if token.hashes.iter().any(|hash| sha256 == hash.as_str()) {
                return Ok(());
            }
            Err(unauthorized("the token is for another blob: name this one in an `x` tag"))
        })
    }

    /// The caller, for a list of blobs.
    pub(super) fn of_list(self, web: &Web) -> Result<Caller, Refusal> {
        self.with_token(web, "list", |_| Ok(()))
    }

    fn with_token(
        self,
        web: &Web,
        verb: &str,
        check: impl FnOnce(&Token) -> Result<(), Refusal>,
    ) -> Result<Caller, Refusal> {
        let event = match self {
            Self::Caller(caller) => return Ok(caller),
            Self::Token(event) => event,
        };
        let token = Token::read(web, &event, verb)?;
        if !token.names_server {
            let host = web.settings.public_url.host_str().unwrap_or_default();
            return Err(unauthorized(&format!(
                "the token may be for any server: name this one, [\"server\", \"{host}\"]"
            )));
        }
        check(&token)?;
        Ok(Caller::new(web, Some(token.key)))
    }
}

/// A Blossom token.
#[derive(Debug)]
pub(super) struct Token {
    /// Who signed, 64 hex.
    pub(super) key: String,
    /// Hashes it is for.
    pub(super) hashes: Vec<String>,
    /// It names this server; otherwise it names none.
    names_server: bool,
}

impl Token {
    /// The token of a request; an error if there is none.
    pub(super) fn of(web: &Web, headers: &HeaderMap, verb: &str) -> Result<Self, Refusal> {
        let event = event(headers)?.ok_or_else(|| unauthorized("this needs a token (BUD-11, kind 24242)"))?;
        Self::read(web, &event, verb)
    }

    fn read(web: &Web, event: &Event, verb: &str) -> Result<Self, Refusal> {
        let now = (web.settings.now)() / 1000;
        let expires = tag(event, "expiration").and_then(|text| text.parse::<u64>().ok());
        let servers: Vec<_> = tags(event, "server").collect();
        let host = web.settings.public_url.host_str().unwrap_or_default();
        let names_server = servers.iter().any(|server| is_host(server, host));
        let problem = if event.kind.as_u16() != TOKEN {
            Some("its kind is not 24242")
        } else if event.created_at.as_secs() > now + SKEW {
            Some("it is from the future")
        } else if expires.is_none_or(|expires| expires <= now) {
            Some("it has expired, or has no `expiration`")
        } else if tag(event, "t") != Some(verb) {
            Some("its `t` names another action")
        } else if !servers.is_empty() && !names_server {
            Some("it is for another server")
        } else {
            None
        };
        match problem {
            Some(problem) => Err(unauthorized(&format!("the token does not count: {problem}"))),
            None => {
                let hashes = tags(event, "x").map(str::to_lowercase).collect();
                Ok(Self { key: event.pubkey.to_hex(), hashes, names_server })
            }
        }
    }
}

/// Whether a `server` tag names a host: BUD-11 writes a domain, older clients the server's URL.
fn is_host(server: &str, host: &str) -> bool {
    let of_url = || Url::parse(server).ok().is_some_and(|url| url.host_str() == Some(host));
    server.eq_ignore_ascii_case(host) || of_url()
}

/// The signed event of an `Authorization: Nostr …` header; base64 of either alphabet, padded or not.
fn event(headers: &HeaderMap) -> Result<Option<Event>, Refusal> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((scheme, text)) = value.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("nostr") {
        return Ok(None);
    }
    let text = text.trim();
    let bytes =
        (text.len() <= LONGEST).then(|| URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()).flatten();
    let event = bytes.and_then(|bytes| Event::from_json(bytes).ok());
    match event.filter(|event| event.verify().is_ok()) {
        Some(event) => Ok(Some(event)),
        None => Err(unauthorized("the Authorization header holds no validly signed event")),
    }
}

fn tags<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a str> {
    event.tags.iter().filter_map(move |tag| match tag.as_slice() {
        [first, value, ..] if first == name => Some(value.as_str()),
        _ => None,
    })
}

fn tag<'a>(event: &'a Event, name: &'a str) -> Option<&'a str> {
    tags(event, name).next()
}

/// The first characters of a key (64 hex) as npub.
pub(super) fn short(key: &str) -> String {
    let npub = PublicKey::from_hex(key).ok().and_then(|key| key.to_bech32().ok());
    format!("{}...", npub.as_deref().unwrap_or(key).chars().take(16).collect::<String>())
}

fn unauthorized(reason: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, reason)
}
