//! The command line client of Nostr git, and the other readers of NIP-C1: which events they drop. They drop whatever breaks a
//! rule, and guess nothing.

use nostr::{Event, EventId, Kind, PublicKey, Tag};

use super::{value, values};

/// Kinds that are judged.
pub const KINDS: [u16; 10] = [9840, 9841, 9842, 9843, 9844, 19843, 19844, 39841, 39842, 39844];
/// Seconds that an advertisement, progress and tail may live, and lists and statuses.
const HALF_AN_HOUR: u64 = 1800;
const DAY: u64 = 86_400;

type Judged = Result<(), String>;

/// Judges an event; one of another kind is fine.
///
/// # Errors
/// Why readers drop it.
pub fn judge(event: &Event) -> Judged {
    let judged = match event.kind.as_u16() {
        9840 => manual_trigger(event),
        9841 => job_result(event),
        9842 => workflow_result(event),
        9843 | 9844 => control(event),
        19843 => advertisement(event),
        19844 => readiness(event),
        39841 => live_tail(event),
        39842 => progress(event),
        39844 => status(event),
        _ => Ok(()),
    };
    judged.map_err(|why| format!("{why}: {event:?}"))
}

/// Judges all of them.
///
/// # Errors
/// As [`judge`], of the first that is dropped.
pub fn judge_all<'a>(events: impl IntoIterator<Item = &'a Event>) -> Judged {
    events.into_iter().try_for_each(judge)
}

fn tags<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a [String]> {
    event.tags.iter().map(Tag::as_slice).filter(move |tag| tag.first().is_some_and(|n| n == name))
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(why()) }
}

fn empty(event: &Event) -> Judged {
    ensure(event.content.is_empty(), || "its content is not empty".into())
}

fn absent(event: &Event, names: &[&str]) -> Judged {
    names.iter().try_for_each(|name| ensure(tags(event, name).next().is_none(), || format!("it has `{name}`")))
}

fn once<'a>(event: &'a Event, name: &str) -> Result<&'a str, String> {
    let found = values(event, name);
    match found[..] {
        [one] if !one.is_empty() => Ok(one),
        _ => Err(format!("`{name}` stands there {} times", found.len())),
    }
}

fn at_most_once(event: &Event, names: &[&str]) -> Judged {
    names.iter().try_for_each(|name| {
        let found = values(event, name);
        ensure(found.len() <= 1 && found.iter().all(|value| !value.is_empty()), || format!("`{name}`: {found:?}"))
    })
}

fn hex(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex(text).map_err(|_| format!("{text} is no key"))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no time"))
}

fn times(event: &Event) -> Judged {
    at_most_once(event, &["queued_at", "started_at"])?;
    ["queued_at", "started_at"]
        .into_iter()
        .filter_map(|name| value(event, name))
        .try_for_each(|at| number(at).map(drop))
}

fn lives(event: &Event, most: u64) -> Judged {
    let (until, from) = (number(once(event, "expiration")?)?, event.created_at.as_secs());
    ensure(until > from && until <= from + most, || format!("it expires after {} s", until.saturating_sub(from)))
}

/// The identifier of an `a` tag.
fn repository(tag: &[String]) -> Result<&str, String> {
    let address = tag.get(1).map(String::as_str).unwrap_or_default();
    let mut parts = address.splitn(3, ':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("30617"), Some(owner), Some(identifier)) if !identifier.is_empty() => key(owner).map(|_| identifier),
        _ => Err(format!("{address} is no repository")),
    }
}

/// The rules for what a run is of; `o` where the kind has it.
fn common(event: &Event, started_by: Option<&str>) -> Judged {
    let identifiers = tags(event, "a").map(repository).collect::<Result<Vec<_>, _>>()?;
    let first = identifiers.first().ok_or("it has no `a`")?;
    ensure(identifiers.iter().all(|other| other == first), || "its `a` are of several repositories".into())?;
    let objects = values(event, "c");
    ensure(!objects.is_empty() && objects.iter().all(|id| hex(id, &[40, 64])), || format!("its `c`: {objects:?}"))?;
    let files: Vec<_> = tags(event, "w").collect();
    match files[..] {
        [[_, path, hash, ..]] if !path.is_empty() && hex(hash, &[64]) => {}
        _ => return Err(format!("its `w`: {files:?}")),
    }
    at_most_once(event, &["E", "K", "P", "e", "k"])?;
    let refs = values(event, "r").into_iter().filter(|name| name.starts_with("refs/")).count();
    let pull_request = value(event, "E").is_some();
    for name in ["E", "e"] {
        if let Some(id) = value(event, name) {
            EventId::from_hex(id).map_err(|_| format!("`{name}` is no id"))?;
        }
    }
    ensure(refs <= 1 && !(refs == 1 && pull_request), || "it has refs, or a ref and a pull request".into())?;
    match started_by {
        None => absent(event, &["o"]),
        Some("push") => ensure(refs == 1, || "a push has no ref".into()),
        Some("pull_request") => ensure(pull_request, || "a pull request has no `E`".into()),
        Some("schedule" | "manual") => Ok(()),
        Some(other) => Err(format!("`o` is {other}")),
    }
}

fn started(event: &Event) -> Judged {
    common(event, Some(once(event, "o")?))
}

fn conclusion(word: &str) -> Judged {
    let known = ["success", "failure", "neutral", "cancelled", "skipped", "timed_out", "startup_failure"];
    ensure(known.contains(&word), || format!("`conclusion` is {word}"))
}

/// What the `q` tags of an event name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Quotes {
    /// Addresses.
    pub addresses: Vec<String>,
    /// Results of jobs: event and job.
    pub jobs: Vec<(String, String)>,
    /// A request: event, its author, marker.
    pub request: Option<[String; 3]>,
}

/// Reads the `q` tags.
///
/// # Errors
/// One that makes readers drop the event.
pub fn quotes(event: &Event) -> Result<Quotes, String> {
    let mut quotes = Quotes::default();
    for tag in tags(event, "q") {
        let text = |place: usize| tag.get(place).map(String::as_str).unwrap_or_default();
        let (named, author, marker) = (text(1), text(3), text(4));
        if let [kind, owner, identifier] = named.splitn(3, ':').collect::<Vec<_>>()[..] {
            key(owner)?;
            number(kind)?;
            quotes.addresses.push(format!("{kind}:{owner}:{identifier}"));
            continue;
        }
        EventId::from_hex(named).map_err(|_| format!("`q` is neither id nor address: {named}"))?;
        match marker {
            "" => {}
            "service-request" | "manual-trigger" => {
                key(author)?;
                ensure(quotes.request.is_none(), || "two requests are quoted".into())?;
                quotes.request = Some([named.to_owned(), author.to_owned(), marker.to_owned()]);
            }
            job => {
                if !author.is_empty() {
                    key(author)?;
                }
                quotes.jobs.push((named.to_owned(), job.to_owned()));
            }
        }
    }
    Ok(quotes)
}

fn quotes_service(quotes: &Quotes) -> bool {
    quotes.request.as_ref().is_some_and(|[_, _, marker]| marker == "service-request")
}

fn manual_trigger(event: &Event) -> Judged {
    empty(event)?;
    key(once(event, "p")?)?;
    common(event, None)
}

fn control(event: &Event) -> Judged {
    empty(event)?;
    absent(event, &["d", "expiration"])?;
    key(once(event, "p")?)?;
    once(event, "a")?;
    tags(event, "a").try_for_each(|tag| repository(tag).map(drop))
}

fn job_result(event: &Event) -> Judged {
    started(event)?;
    absent(event, &["d"])?;
    times(event)?;
    once(event, "job")?;
    at_most_once(event, &["name", "logs", "exit_code"])?;
    conclusion(once(event, "conclusion")?)?;
    let quotes = quotes(event)?;
    ensure(!quotes_service(&quotes), || "a job quotes a service request".into())?;
    let runs = quotes.addresses.iter().filter(|address| address.starts_with("39842:")).count();
    ensure(runs == 1, || format!("it is of {runs} runs"))?;
    outputs(event)
}

fn outputs(event: &Event) -> Judged {
    let names: Vec<&str> = [values(event, "output"), values(event, "output-omitted")].concat();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    ensure(distinct.len() == names.len() && !names.contains(&""), || {
        "an output's name is empty or there twice".into()
    })?;
    let lengths = tags(event, "output").map(|tag| tag.get(2).map_or(0, String::len)).collect::<Vec<_>>();
    let fits = lengths.iter().all(|bytes| *bytes <= 8192) && lengths.iter().sum::<usize>() <= 65_536;
    ensure(fits, || "its outputs are too long".into())?;
    tags(event, "output-omitted").try_for_each(|tag| {
        let why = tag.get(2).map(String::as_str).unwrap_or_default();
        ensure(["missing", "oversized", "unresolved"].contains(&why), || format!("an output is left out for {why}"))
    })
}

fn workflow_result(event: &Event) -> Judged {
    empty(event)?;
    started(event)?;
    times(event)?;
    quotes(event)?;
    conclusion(once(event, "conclusion")?)?;
    let runs = values(event, "r").into_iter().filter(|name| !name.starts_with("refs/")).count();
    ensure(runs == 1, || format!("it names {runs} runs"))
}

fn progress(event: &Event) -> Judged {
    empty(event)?;
    started(event)?;
    times(event)?;
    once(event, "d")?;
    lives(event, HALF_AN_HOUR)?;
    let (status, ended) = (once(event, "status")?, value(event, "conclusion"));
    ensure(["queued", "in_progress", "concluded"].contains(&status), || format!("`status` is {status}"))?;
    at_most_once(event, &["conclusion", "queue"])?;
    ensure(ended.is_some() == (status == "concluded"), || format!("{status} with conclusion {ended:?}"))?;
    ended.map_or(Ok(()), conclusion)?;
    let quotes = quotes(event)?;
    ensure(status != "queued" || !quotes_service(&quotes), || "a queued run quotes a service request".into())
}

fn live_tail(event: &Event) -> Judged {
    started(event)?;
    once(event, "d")?;
    lives(event, HALF_AN_HOUR)?;
    absent(event, &["conclusion", "status", "q"])?;
    let content: serde_json::Value = serde_json::from_str(&event.content).map_err(|error| error.to_string())?;
    let jobs = content["jobs"].as_array().ok_or("it has no list of jobs")?;
    let named: Vec<_> = jobs.iter().filter_map(|job| job["job"].as_str().filter(|name| !name.is_empty())).collect();
    let distinct: std::collections::HashSet<_> = named.iter().collect();
    ensure(named.len() == jobs.len() && distinct.len() == jobs.len(), || {
        "a job has no name, or is there twice".into()
    })?;
    let readable = |job: &serde_json::Value| {
        job["tail"].is_string() && (job["omitted"].is_null() || job["omitted"].as_u64().is_some())
    };
    ensure(jobs.iter().all(readable), || "a job's tail can't be read".into())
}

/// `W` and `R`: families, and selectors of families that are there.
fn capabilities(event: &Event) -> Judged {
    let (families, selectors) = (values(event, "W"), values(event, "R"));
    let of = |selector: &&str| selector.split_once(':').map(|(family, _)| family.to_owned()).unwrap_or_default();
    let selected: Vec<String> = selectors.iter().map(of).collect();
    let all = families.iter().all(|family| selected.iter().any(|of| of == family));
    let known = selected.iter().all(|of| families.contains(&of.as_str()));
    ensure(!families.is_empty() && all && known, || format!("families {families:?}, selectors {selectors:?}"))?;
    absent(event, &["runs_on"])
}

fn advertisement(event: &Event) -> Judged {
    empty(event)?;
    absent(event, &["d"])?;
    capabilities(event)?;
    lives(event, HALF_AN_HOUR)?;
    at_most_once(event, &["B", "secrets-key"])?;
    let (admission, execution) = (once(event, "M")?, once(event, "X")?);
    ensure(["operator-selected", "maintainer-request", "open"].contains(&admission), || format!("`M` is {admission}"))?;
    ensure(["automatic", "request-required"].contains(&execution), || format!("`X` is {execution}"))?;
    if let Some(billing) = value(event, "B") {
        ensure(["not-required", "out-of-band"].contains(&billing), || format!("`B` is {billing}"))?;
    }
    tags(event, "secrets-key").try_for_each(|tag| match tag {
        [_, version, recipient, inboxes @ ..] if version == "nip44-v2" && !inboxes.is_empty() => {
            key(recipient).map(drop)
        }
        _ => Err(format!("{tag:?}")),
    })
}

fn readiness(event: &Event) -> Judged {
    empty(event)?;
    absent(event, &["d"])?;
    lives(event, DAY)?;
    tags(event, "a").try_for_each(|tag| repository(tag).map(drop))?;
    values(event, "p").into_iter().try_for_each(|owner| key(owner).map(drop))?;
    let all: Vec<&[String]> = tags(event, "a").chain(tags(event, "p")).collect();
    let distinct: std::collections::HashSet<_> = all.iter().filter_map(|tag| tag.get(1)).collect();
    ensure(distinct.len() == all.len() && all.iter().all(|tag| tag.len() <= 3), || {
        "an item is there twice, or marked".into()
    })
}

fn status(event: &Event) -> Judged {
    empty(event)?;
    lives(event, DAY)?;
    let selected = once(event, "d")?;
    let listed = values(event, "a");
    let distinct: std::collections::HashSet<_> = listed.iter().collect();
    ensure(listed.first() == Some(&selected), || "the first `a` is not the `d`".into())?;
    ensure(distinct.len() == listed.len() && listed.get(1..).is_some_and(<[&str]>::is_sorted), || {
        format!("{listed:?}")
    })?;
    ensure(once(event, "s")? == "acting", || "`s` is not acting".into())?;
    capabilities(event)
}

/// What a client shows of one run by all that it has of a coordinator.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// How it ended; `None`: it has not.
    pub conclusion: Option<String>,
    /// Jobs and how they ended.
    pub jobs: Vec<(String, String)>,
    /// Whether it turns.
    pub spins: bool,
}

/// Shows a run at a time (s): jobs count only where the result quotes them, and a progress only while it has not expired,
/// is no end, and no result of the same run is there.
pub fn shown(events: &[Event], coordinator: &PublicKey, run: &str, now: u64) -> Shown {
    let ours = |kind: u16| events.iter().filter(move |e| e.kind == Kind::from(kind) && e.pubkey == *coordinator);
    let result = ours(9842).filter(|event| values(event, "r").contains(&run)).max_by_key(|event| event.created_at);
    let progress = ours(39842).filter(|event| value(event, "d") == Some(run)).max_by_key(|event| event.created_at);
    let of = result.or(progress);
    let quoted = of.and_then(|event| quotes(event).ok()).unwrap_or_default().jobs;
    let ended = |(id, job): (String, String)| {
        let event = events.iter().find(|event| event.id.to_hex() == id)?;
        Some((job, value(event, "conclusion")?.to_owned()))
    };
    let spins = result.is_none()
        && progress.is_some_and(|event| {
            let lives = value(event, "expiration").and_then(|at| at.parse::<u64>().ok()).is_some_and(|at| at > now);
            lives && value(event, "status") != Some("concluded")
        });
    Shown {
        conclusion: result.and_then(|event| value(event, "conclusion")).map(str::to_owned),
        jobs: quoted.into_iter().filter_map(ended).collect(),
        spins,
    }
}
