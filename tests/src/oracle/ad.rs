//! How each client reads an advertisement (10100).

use nostr::{Event, Tag};
use serde_json::Value;

use super::{first, value};

/// What a client reads of a price.
#[derive(Debug, Clone, PartialEq)]
pub enum Price {
    /// No price tag.
    Free,
    /// Sat for a second, at a mint.
    Paid {
        /// Rate.
        rate: f64,
        /// Unit.
        unit: String,
        /// Mint.
        mint: String,
    },
    /// A price tag that the client can't read.
    Malformed,
}

/// An advertisement as a client keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ad {
    /// Name.
    pub name: String,
    /// Architecture.
    pub architecture: Option<String>,
    /// Version of `act`.
    pub act: Option<String>,
    /// Price.
    pub price: Price,
    /// Seconds.
    pub min_duration: Option<u64>,
    /// Seconds.
    pub max_duration: Option<u64>,
}

fn name(event: &Event) -> Option<String> {
    let content: Value = serde_json::from_str(&event.content).ok()?;
    content.get("name")?.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Version of each piece of software.
fn software<'a>(event: &'a Event, wanted: &str) -> Option<&'a str> {
    let mut tags = event.tags.iter().map(Tag::as_slice);
    let tag = tags.find(|tag| tag.first().is_some_and(|n| n == "S") && tag.get(1).is_some_and(|n| n == wanted))?;
    tag.get(2).map(String::as_str)
}

fn read(event: &Event, name: String, price: Price) -> Ad {
    let number = |tag: &str| value(event, tag).and_then(|text| text.parse().ok());
    Ad {
        name,
        architecture: value(event, "A").map(str::to_owned),
        act: software(event, "act").map(str::to_owned),
        price,
        min_duration: number("min_duration"),
        max_duration: number("max_duration"),
    }
}

/// The web client and the watcher: positions 2, 3, 4 are rate, unit and mint; a rate of 0 is malformed.
/// `None`: without a name the advertisement is ignored.
pub fn by_ui(event: &Event) -> Option<Ad> {
    let price = match first(event, "price") {
        None => Price::Free,
        Some([_, rate, unit, mint, ..]) => match rate.parse::<f64>() {
            Ok(rate) if rate > 0.0 => Price::Paid { rate, unit: unit.clone(), mint: mint.clone() },
            _ => Price::Malformed,
        },
        Some(_) => Price::Malformed,
    };
    Some(read(event, name(event)?, price))
}

/// The Gitea bridge: mint, rate, unit; durations are needed; needs `act`.
///
/// # Errors
/// Why the whole advertisement is refused.
pub fn by_gg(event: &Event) -> Result<Ad, String> {
    let price = match first(event, "price") {
        None => Price::Free,
        Some([mint, rate, unit, ..]) => {
            let rate: u32 = rate.parse().map_err(|_| "rate is no unsigned integer")?;
            if !mint.starts_with("https://") || unit != "sat" {
                return Err("mint is no https URL, or unit is not sat".into());
            }
            Price::Paid { rate: f64::from(rate), unit: unit.clone(), mint: mint.clone() }
        }
        Some(_) => return Err("price is too short".into()),
    };
    let ad = read(event, name(event).unwrap_or_default(), price);
    match (ad.min_duration, ad.max_duration) {
        (Some(min), Some(max)) if max > 0 && min <= max => {}
        _ => return Err("durations are missing or wrong".into()),
    }
    if ad.act.is_none() { Err("no act".into()) } else { Ok(ad) }
}

/// The deployment system: needs loom-ci, git, act and docker, and a metric.
///
/// # Errors
/// What is missing.
pub fn by_bah(event: &Event) -> Result<Ad, String> {
    for wanted in ["loom-ci", "git", "act", "docker"] {
        software(event, wanted).ok_or(format!("no {wanted}"))?;
    }
    if first(event, "price").is_some() && value(event, "metric") != Some("second") {
        return Err("no metric".into());
    }
    by_gg(event)
}

/// The cost by which the web client ranks: rate × `min_duration`; free ones count as infinite.
pub fn ui_cost(ad: &Ad) -> f64 {
    let rate = if let Price::Paid { rate, .. } = &ad.price { *rate } else { f64::INFINITY };
    let seconds = u32::try_from(ad.min_duration.unwrap_or(0)).unwrap_or(u32::MAX);
    rate * f64::from(seconds)
}
