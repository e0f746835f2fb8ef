//! Moments and lengths of time as people read them. Pure.

use domain::run::Millis;

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60 * SECOND;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// A moment, UTC.
pub(super) fn moment(millis: &Millis) -> String {
    formatted(*millis, "%Y-%m-%d %H:%M:%S")
}

/// A moment as `datetime` of HTML has it.
pub(super) fn iso(millis: &Millis) -> String {
    formatted(*millis, "%Y-%m-%dT%H:%M:%SZ")
}

fn formatted(millis: Millis, form: &str) -> String {
    let moment = i64::try_from(millis).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    moment.unwrap_or_default().strftime(form).to_string()
}

/// How long ago a moment was; the date, where that is more than thirty days.
pub(super) fn ago(at: &Millis, now: &Millis) -> String {
    let some = |count: u64, unit: &str| format!("{count} {unit} ago");
    match now.saturating_sub(*at) {
        since if since < 5 * SECOND => "just now".to_owned(),
        since if since < MINUTE => some(since / SECOND, "s"),
        since if since < HOUR => some(since / MINUTE, "min"),
        since if since < DAY => some(since / HOUR, "h"),
        since if since < 2 * DAY => "yesterday".to_owned(),
        since if since < 30 * DAY => some(since / DAY, "days"),
        _ => formatted(*at, "%Y-%m-%d"),
    }
}

/// How long something takes that goes on.
pub(super) fn since(begun: &Millis, now: &Millis) -> String {
    span(now.saturating_sub(*begun))
}

/// A length of time, as templates call it.
pub(super) fn length(millis: &Millis) -> String {
    span(*millis)
}

/// A length of time, in two units at most.
pub(super) fn span(millis: Millis) -> String {
    match millis {
        0..SECOND => format!("{millis} ms"),
        SECOND..MINUTE => format!("{}.{} s", millis / SECOND, millis % SECOND / 100),
        MINUTE..HOUR => format!("{} min {} s", millis / MINUTE, millis % MINUTE / SECOND),
        _ => format!("{} h {} min", millis / HOUR, millis % HOUR / MINUTE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_units_at_most_and_moments_by_how_long_ago_they_were() {
        let cases = [(0, "0 ms"), (1_250, "1.2 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")];
        assert!(cases.iter().all(|(millis, text)| span(*millis) == *text));
        let now = 1_800_000_000_000;
        let cases = [
            (0, "just now"),
            (30 * SECOND, "30 s ago"),
            (61 * MINUTE, "1 h ago"),
            (26 * HOUR, "yesterday"),
            (3 * DAY, "3 days ago"),
            (40 * DAY, "2026-12-06"),
        ];
        for (since, text) in cases {
            assert_eq!(ago(&(now - since), &now), text);
        }
        assert_eq!(ago(&(now + HOUR), &now), "just now", "a clock that is ahead");
        assert_eq!((moment(&now).as_str(), iso(&now).as_str()), ("2027-01-15 08:00:00", "2027-01-15T08:00:00Z"));
    }
}
