//! When a line of a schedule starts its workflow: five fields of POSIX cron, in UTC.

use std::str::FromStr as _;

use croner::Cron;
use jiff::{Timestamp, tz::TimeZone};

/// Starts of one line are no closer together (GitHub docs, "Events that trigger workflows", `schedule`).
const CLOSEST_MS: u64 = 5 * 60_000;

/// A line that was read.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads a line; `None`: it is none, or never comes.
    pub fn read(line: &str) -> Option<Self> {
        if line.split_whitespace().count() != 5 {
            return None;
        }
        let schedule = Self(Cron::from_str(line).ok()?);
        schedule.at_or_after(0).is_some().then_some(schedule)
    }

    /// When it starts first (ms since the Unix epoch) where it is known since `now`: what passed before does not count.
    pub fn first_after(&self, now: u64) -> Option<u64> {
        self.at_or_after(now.saturating_add(1))
    }

    /// When it starts next after a start that was due at `due` and is made at `now`. All that came between is that one
    /// start, which then counts from `now`.
    pub fn next_after(&self, due: u64, now: u64) -> Option<u64> {
        let late = now.saturating_sub(due) >= CLOSEST_MS;
        self.at_or_after(if late { now } else { due }.saturating_add(CLOSEST_MS))
    }

    fn at_or_after(&self, ms: u64) -> Option<u64> {
        // A part of a second would not be looked at: the time could be one that has passed.
        let from = Timestamp::from_second(i64::try_from(ms.div_ceil(1000)).ok()?).ok()?.to_zoned(TimeZone::UTC);
        let next = self.0.find_next_occurrence(&from, true).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn a_new_schedule_begins_with_its_next_time() {
        for (line, now, first) in [
            ("30 5 * * 1-5", "2026-11-28T10:00:00Z", "2026-11-30T05:30:00Z"),
            ("0 0 1 1 *", "2026-11-30T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("*/15 * * * *", "2026-11-30T10:15:00Z", "2026-11-30T10:30:00Z"),
            ("*/15 * * * *", "2026-11-30T10:15:00.001Z", "2026-11-30T10:30:00Z"),
            ("0 12 29 2 *", "2026-11-30T00:00:00Z", "2028-02-29T12:00:00Z"),
            // Where both days are named, either counts.
            ("0 0 13 * fri", "2026-11-30T00:00:00Z", "2026-12-04T00:00:00Z"),
            ("0 0 * * 7", "2026-11-30T00:00:00Z", "2026-12-06T00:00:00Z"),
        ] {
            assert_eq!(Schedule::read(line).unwrap().first_after(ms(now)), Some(ms(first)), "{line} {now}");
        }
    }

    #[test]
    fn t66_starts_are_five_minutes_apart_and_an_outage_is_one_start() {
        let minutely = Schedule::read("*/1 * * * *").unwrap();
        let due = ms("2026-11-30T10:00:00Z");
        assert_eq!(minutely.next_after(due, due + 200), Some(ms("2026-11-30T10:05:00Z")));
        let back = ms("2026-11-30T13:00:10Z");
        assert_eq!(minutely.next_after(due, back), Some(ms("2026-11-30T13:06:00Z")));
        let daily = Schedule::read("0 3 * * *").unwrap();
        let due = ms("2026-11-27T03:00:00Z");
        assert_eq!(daily.next_after(due, ms("2026-11-30T03:00:01Z")), Some(ms("2026-12-01T03:00:00Z")));
    }

    #[test]
    fn what_is_no_line_of_five_fields_or_never_comes_is_no_schedule() {
        for line in ["", "* * * *", "* * * * * *", "61 * * * *", "a b c d e", "0 0 31 2 *"] {
            assert!(Schedule::read(line).is_none(), "{line}");
        }
    }
}
