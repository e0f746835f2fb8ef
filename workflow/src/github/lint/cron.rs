//! Times of `schedule`: fields that mean nothing, and times closer together than GitHub starts runs.
//!
//! Source: GitHub docs, "Events that trigger workflows", `schedule`: POSIX cron, five minutes at the closest.

use crate::github::report::Report;
use crate::yaml::YamlNode;

/// GitHub starts scheduled runs no oftener. Minutes.
const CLOSEST: u32 = 5;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field: its name, the least and the largest number, and the words that stand for numbers from the least on.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of the week", 0, 7, &DAYS),
];

pub(super) fn check(schedule: &YamlNode, report: &mut Report<'_>) {
    for node in schedule.items().iter().filter_map(|item| item.get("cron")) {
        let text = node.text().unwrap_or_default();
        let fields: Vec<&str> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            continue;
        }
        let read = fields.iter().zip(FIELDS).map(|(text, field)| times(text, field)).collect::<Result<Vec<_>, _>>();
        match read {
            Err(why) => report.warning(node.span, why),
            Ok(times) => {
                if let [minutes, hours, ..] = times.as_slice()
                    && let Some(gap) = closest(minutes, hours).filter(|gap| *gap < CLOSEST)
                {
                    let message = format!("it starts {gap} minutes apart: GitHub starts runs every {CLOSEST} at most");
                    let help = format!("write `*/{CLOSEST}` for the minutes, or larger steps");
                    report.warning_with(node.span, message, Some(help));
                }
            }
        }
    }
}

/// The numbers that a field names, in order.
fn times(text: &str, field: (&str, u32, u32, &[&str])) -> Result<Vec<u32>, String> {
    let (name, least, most, words) = field;
    let wrong =
        || format!("`{text}` is no {name}: it takes numbers from {least} to {most}, `*`, `a-b`, `a,b` and `*/n`");
    let number = |text: &str| {
        let word =
            words.iter().zip(least..).find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, number)| number);
        word.or_else(|| text.parse().ok()).filter(|number| (least..=most).contains(number)).ok_or_else(wrong)
    };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = step.map_or(Some(1), |step| step.parse::<u32>().ok()).filter(|step| *step > 0).ok_or_else(wrong)?;
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        numbers.extend((from..=to).step_by(step as usize));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The fewest minutes between two starts within a day.
fn closest(minutes: &[u32], hours: &[u32]) -> Option<u32> {
    let within = minutes.windows(2).filter_map(|pair| Some(pair.last()? - pair.first()?)).min();
    let follow = hours.windows(2).any(|pair| matches!(pair, [one, next] if next - one == 1));
    let across = match (minutes.first(), minutes.last()) {
        (Some(first), Some(last)) if follow => Some(60 + first - last),
        _ => None,
    };
    within.into_iter().chain(across).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_numbers_words_ranges_and_steps() {
        for (text, field, expected) in [
            ("*/20", 0, Some(vec![0, 20, 40])),
            ("10-12,5", 0, Some(vec![5, 10, 11, 12])),
            ("MON-fri", 4, Some(vec![1, 2, 3, 4, 5])),
            ("5/30", 0, Some(vec![5, 35])),
            ("60", 0, None),
            ("*/0", 0, None),
            ("5-1", 2, None),
            ("x", 3, None),
        ] {
            let read = FIELDS.get(field).and_then(|field| times(text, *field).ok());
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn the_closest_two_starts_may_lie_in_two_hours() {
        let all: Vec<u32> = (0..24).collect();
        assert_eq!(closest(&[0, 58], &all), Some(2));
        assert_eq!(closest(&[0, 58], &[3, 9]), Some(58));
        assert_eq!(closest(&[0], &[3]), None);
    }
}
