//! The Blossom endpoint at the root: BUD-01, 02, 06, 11 and 12. Mirroring (BUD-04) is answered with 501.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use tower_http::cors::{Any, CorsLayer};

use domain::id::BlobHash;

use super::{
    Refusal, Settings, Web,
    auth::{BlobReader, Token},
    html,
    request_limits::{self, Client},
};
use blobs::{BlobError, ByteRange, Deposit, Put, content_range};
use store::{Blob, Uploads};
use workflow::time::DAY_MS;

/// Most entries of one list.
const LIST: u32 = 1000;
/// Blobs of one key that a run brought.
const PUBLISHED: u64 = 100;
/// Content security policy of blobs: an uploaded page runs no script in our origin.
const INERT: &str = "default-src 'none'; sandbox";

pub(super) fn routes() -> Router<Web> {
    let cors = CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(Any).expose_headers(Any);
    Router::new()
        .route("/upload", put(upload).head(precheck))
        .route("/mirror", put(mirror))
        .route("/list/{key}", get(list))
        .route("/{name}", get(fetch).delete(remove))
        .layer(cors)
}

#[derive(Debug, Serialize)]
struct Descriptor {
    url: String,
    sha256: BlobHash,
    size: u64,
    #[serde(rename = "type")]
    kind: String,
    uploaded: u64,
}

impl Descriptor {
    fn new(web: &Web, blob: Blob) -> Self {
        let url = format!("{}/{}", web.settings.public_url.as_str().trim_end_matches('/'), blob.sha256);
        Self { url, sha256: blob.sha256, size: blob.size, kind: blob.kind, uploaded: blob.stored_at / 1000 }
    }
}

async fn fetch(
    State(web): State<Web>,
    reader: BlobReader,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let sha256 = match hash(&name) {
        Ok(sha256) => sha256,
        Err(refusal) => return Ok(html::refused(&headers, refusal)),
    };
    let blob = readable(&web, reader, &sha256).await?;
    let (status, part) = match ByteRange::parse(text(&headers, header::RANGE.as_str()), blob.size) {
        ByteRange::Whole => (StatusCode::OK, None),
        ByteRange::Part(part) => (StatusCode::PARTIAL_CONTENT, Some(part)),
        ByteRange::Unsatisfiable => {
            let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range lies beyond the blob");
            let size = HeaderValue::from_str(&format!("bytes */{}", blob.size))?;
            return Ok(([(header::CONTENT_RANGE, size)], refusal).into_response());
        }
    };
    let Some(bytes) = web.blobs.get(&sha256, part.clone()).await? else { return Err(no_blob()) };
    let length = part.as_ref().map_or(blob.size, |part| part.end - part.start);
    let kind = HeaderValue::from_str(&blob.kind).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = Response::new(Body::from_stream(bytes));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, kind);
    fields.insert(header::CONTENT_LENGTH, length.into());
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(INERT));
    let cache = if blob.public { "public, max-age=31536000, immutable" } else { "private, no-store" };
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Some(part) = part {
        fields.insert(header::CONTENT_RANGE, HeaderValue::from_str(&content_range(&part, blob.size))?);
    }
    Ok(response)
}

/// The row by which this caller may read the bytes: a public one, its own, or that of a run it may see.
async fn readable(web: &Web, reader: BlobReader, sha256: &BlobHash) -> Result<Blob, Refusal> {
    let rows = web.store.blob(sha256).await?;
    if let Some(row) = rows.iter().find(|row| row.public) {
        return Ok(row.clone());
    }
    // Whether there is such a blob or not: the answer to a token that does not count is the same.
    let caller = reader.of_blob(web, sha256)?;
    for row in rows {
        let owns = caller.key.as_ref() == Some(&row.owner);
        let run = web.store.run(&row.owner.as_str().into()).await?;
        if owns || run.is_some_and(|state| caller.reader.may_read(&state.visibility)) {
            return Ok(row);
        }
    }
    Err(no_blob())
}

async fn upload(State(web): State<Web>, client: Client, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let token = writer(&web, &headers).await?;
    let permit = request_limits::permit(&web.limits.uploads, client, "uploads")?;
    let announced = announced(&headers, &token)?;
    let room = admit(&web, &token.key, length(&headers, header::CONTENT_LENGTH.as_str())).await?;
    let now = (web.settings.now)();
    let deposit = Deposit {
        kind: text(&headers, header::CONTENT_TYPE.as_str()).unwrap_or("application/octet-stream").to_owned(),
        owner: token.key,
        public: true,
        now,
        expires_at: now + web.settings.keep,
        allowed: Some(announced),
        limit: room,
    };
    // It ends early where its permit is given away: the hash does not fit then.
    let stream = request_limits::while_permitted(body.into_data_stream().map_err(std::io::Error::other), permit);
    match web.blobs.put(stream, deposit).await {
        Ok(Put::New(blob)) => Ok((StatusCode::CREATED, Json(Descriptor::new(&web, blob))).into_response()),
        Ok(Put::Known(blob)) => Ok(Json(Descriptor::new(&web, blob)).into_response()),
        Err(error @ BlobError::TooLarge(_)) => Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())),
        Err(error @ BlobError::Mismatch(_)) => Err(Refusal::new(StatusCode::CONFLICT, error.to_string())),
        Err(error @ BlobError::Body(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// Whether an upload would be accepted (BUD-06).
async fn precheck(State(web): State<Web>, headers: HeaderMap) -> Result<StatusCode, Refusal> {
    let token = writer(&web, &headers).await?;
    announced(&headers, &token)?;
    admit(&web, &token.key, length(&headers, "x-content-length")).await?;
    Ok(StatusCode::OK)
}

async fn mirror() -> Refusal {
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server does not mirror; upload the bytes")
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    cursor: Option<String>,
    limit: Option<u32>,
}

async fn list(
    State(web): State<Web>,
    reader: BlobReader,
    Path(key): Path<String>,
    Query(cursor): Query<ListQuery>,
) -> Result<Json<Vec<Descriptor>>, Refusal> {
    let own = reader.of_list(&web)?.key.as_ref() == Some(&key);
    let rows = web.store.blobs_of(&key, LIST).await?;
    let skip = cursor.cursor.map_or(0, |last| {
        rows.iter().position(|row| row.sha256 == last.as_str()).map_or(rows.len(), |position| position + 1)
    });
    let shown = rows.into_iter().skip(skip).filter(|row| row.public || own);
    let limit = cursor.limit.unwrap_or(LIST).min(LIST) as usize;
    Ok(Json(shown.take(limit).map(|row| Descriptor::new(&web, row)).collect()))
}

async fn remove(State(web): State<Web>, Path(name): Path<String>, headers: HeaderMap) -> Result<StatusCode, Refusal> {
    let sha256 = hash(&name)?;
    let token = Token::of(&web, &headers, "delete")?;
    if !token.hashes.iter().any(|hash| sha256 == hash.as_str()) {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the token is for another blob"));
    }
    let rows = web.store.blob(&sha256).await?;
    if rows.is_empty() {
        return Err(no_blob());
    }
    if !rows.iter().any(|row| row.owner == token.key) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "the blob is not yours"));
    }
    web.blobs.delete(&sha256, &token.key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A token of a key that may upload here.
async fn writer(web: &Web, headers: &HeaderMap) -> Result<Token, Refusal> {
    let token = Token::of(web, headers, "upload")?;
    let ended_since = (web.settings.now)().saturating_sub(DAY_MS);
    if web.settings.writers.contains(&token.key) || web.store.is_publisher(&token.key, ended_since).await? {
        return Ok(token);
    }
    let reason =
        "uploads are for blossom.writers, and for publisher keys of this pool's runs until a day after their end";
    Err(Refusal::new(StatusCode::FORBIDDEN, reason))
}

/// The hashes that the body may have: the one announced, or those of the token.
fn announced(headers: &HeaderMap, token: &Token) -> Result<Vec<BlobHash>, Refusal> {
    // Another `x` than a hash fits no bytes.
    let parsed = |hash: &String| hash.parse().ok();
    if token.hashes.is_empty() {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the token names no blob (`x`)"));
    }
    match text(headers, "x-sha-256").map(str::to_lowercase) {
        None => Ok(token.hashes.iter().filter_map(parsed).collect()),
        Some(hash) if token.hashes.contains(&hash) => Ok(parsed(&hash).into_iter().collect()),
        Some(_) => Err(Refusal::new(StatusCode::UNAUTHORIZED, "the token is for another blob than X-SHA-256")),
    }
}

/// Whether an upload of a key with this declared size is accepted. Returns the most bytes it may have.
///
/// A key that only a run brought has room for what a run publishes, and all of them together for half of everything: keys
/// that the operator named find the rest.
async fn admit(web: &Web, key: &str, size: Option<u64>) -> Result<u64, Refusal> {
    let size = size.unwrap_or(0);
    let Settings { max_blob, max_total, writers, .. } = &*web.settings;
    if size > *max_blob {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {max_blob} bytes in one blob")));
    }
    let all = web.store.uploads(None).await?.bytes;
    let mut room = max_total.saturating_sub(all);
    let mut full = "this server's room for blobs is full";
    if !writers.iter().any(|writer| writer == key) {
        let mut of_writers = 0;
        for writer in writers {
            of_writers += web.store.uploads(Some(writer)).await?.bytes;
        }
        let of_publishers = all.saturating_sub(of_writers);
        room = room.min((max_total / 2).saturating_sub(of_publishers));
        let own = web.store.uploads(Some(key)).await?;
        let left = max_blob.saturating_add(PUBLISHED * Uploads::OBJECT).saturating_sub(own.bytes);
        if own.number >= PUBLISHED || size > left {
            room = 0;
            full = "the key of a run has room for 100 blobs, and no more bytes than one may have: upload with a key that \
                    the operator lists in blossom.writers";
        }
        room = room.min(left);
    }
    if size.max(Uploads::OBJECT) > room {
        return Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, full));
    }
    Ok(room.min(*max_blob))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn length(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// The hash of `<sha256>[.ext]`.
fn hash(name: &str) -> Result<BlobHash, Refusal> {
    let hash = name.split('.').next().unwrap_or_default().to_lowercase();
    let nothing = |_| Refusal::new(StatusCode::NOT_FOUND, "there is nothing here: a blob is named by its SHA-256");
    hash.parse().map_err(nothing)
}

fn no_blob() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such blob, or it is not open to you")
}
