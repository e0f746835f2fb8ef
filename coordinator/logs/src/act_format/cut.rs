//! Fitting a log into the viewer's limit: markers stay, long outputs lose their middle.

use super::Part;

/// Joins the parts to at most `limit` bytes; what is left out is said, with where all of it is.
pub(super) fn join(parts: Vec<Part>, full_url: &str, limit: usize) -> String {
    let mut text = String::new();
    let markers: usize = parts.iter().map(|part| if let Part::Marker(line) = part { line.len() + 1 } else { 0 }).sum();
    if markers > limit {
        let lines: Vec<_> = parts
            .into_iter()
            .filter_map(|part| if let Part::Marker(line) = part { Some(line) } else { None })
            .collect();
        let prefix = lines.first().and_then(|line| line.split_inclusive("] ").next()).unwrap_or_default().to_owned();
        shorten(&prefix, &lines, 0, limit, full_url, &mut text);
    } else {
        let sizes = parts
            .iter()
            .filter_map(|part| if let Part::Output { lines, .. } = part { Some(size(lines)) } else { None });
        let share = share(sizes.collect(), limit - markers);
        for part in &parts {
            match part {
                Part::Output { prefix, lines, left_out } if size(lines) > share => {
                    shorten(prefix, lines, *left_out, share, full_url, &mut text);
                }
                Part::Output { lines, .. } => lines.iter().for_each(|line| push(&mut text, line)),
                Part::Marker(line) => push(&mut text, line),
            }
        }
    }
    text.pop();
    text
}

fn size(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The most bytes that one output may take so that all fit: short ones stay whole, what they leave goes to long ones.
fn share(mut sizes: Vec<usize>, mut budget: usize) -> usize {
    sizes.sort_unstable();
    let mut left = sizes.len();
    for size in sizes {
        let equal = budget / left;
        if size > equal {
            return equal;
        }
        budget -= size;
        left -= 1;
    }
    usize::MAX
}

/// Keeps the beginning and the end within `room` bytes. Lines carry `prefix` already; `missing` ones of the middle are
/// not among them.
fn shorten(prefix: &str, lines: &[String], missing: usize, room: usize, full_url: &str, text: &mut String) {
    let notice = |count: usize| format!("{prefix}… {count} lines left out here, the whole log: {full_url}");
    let Some(room) = room.checked_sub(notice(lines.len() + missing).len() + 1) else { return };
    let (mut head_room, mut tail_room) = (room / 2, room - room / 2);
    let head = lines.iter().take_while(|line| takes(&mut head_room, line)).count();
    let rest = lines.get(head..).unwrap_or_default();
    let tail = rest.iter().rev().take_while(|line| takes(&mut tail_room, line)).count();
    let left_out = rest.get(..rest.len() - tail).unwrap_or_default();

    lines.iter().take(head).for_each(|line| push(text, line));
    if let Some(line) = left_out.first().filter(|_| head_room > prefix.len() + 1) {
        push(text, line.get(..line.floor_char_boundary(head_room - 1)).unwrap_or_default());
    }
    push(text, &notice(left_out.len() + missing));
    if let (Some(line), Some(room)) = (left_out.last(), tail_room.checked_sub(prefix.len() + 1)) {
        let content = line.get(prefix.len()..).unwrap_or_default();
        let start = content.ceil_char_boundary(content.len().saturating_sub(room));
        push(text, &format!("{prefix}{}", content.get(start..).unwrap_or_default()));
    }
    rest.iter().skip(left_out.len()).for_each(|line| push(text, line));
}

fn takes(room: &mut usize, line: &str) -> bool {
    let fits = line.len() < *room;
    if fits {
        *room -= line.len() + 1;
    }
    fits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn output(prefix: &str, lines: &[String]) -> Part {
        Part::Output {
            prefix: prefix.into(),
            lines: lines.iter().map(|line| format!("{prefix}{line}")).collect(),
            left_out: 0,
        }
    }

    proptest! {
        #[test]
        fn the_text_stays_in_its_limit_keeps_markers_and_prefixes_every_line(
            outputs in prop::collection::vec(prop::collection::vec("[a-zé✅]{0,60}", 0..30), 1..6),
            limit in 300usize..3000,
        ) {
            let parts = outputs.iter().enumerate().flat_map(|(index, lines)| {
                [Part::Marker(format!("[w/j] marker {index}")), output("[w/j] | ", lines)]
            });
            let text = join(parts.collect(), "https://x", limit);
            prop_assert!(text.len() <= limit, "{} of {limit}", text.len());
            for index in 0..outputs.len() {
                let marker = format!("[w/j] marker {index}");
                prop_assert!(text.lines().any(|line| line == marker));
            }
            prop_assert!(text.lines().all(|line| line.starts_with("[w/j] ")), "{}", text);
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let parts = vec![Part::Marker("[w/j] m".into()), output("[w/j] | ", &["a".into(), "b".into()])];
        assert_eq!(join(parts, "https://x", 1000), "[w/j] m\n[w/j] | a\n[w/j] | b");
    }

    #[test]
    fn one_endless_line_keeps_its_beginning_and_its_end() {
        let line = format!("begin{}end", "x".repeat(5000));
        let text = join(vec![output("[w/j] | ", &[line])], "https://x/log", 400);
        assert!(text.starts_with("[w/j] | beginx") && text.ends_with("xend") && text.len() <= 400);
        assert!(text.contains("the whole log: https://x/log"));
    }

    #[test]
    fn too_many_markers_for_the_limit_lose_their_middle() {
        let parts = (0..1000).map(|index| Part::Marker(format!("[w/j] marker {index}")));
        let text = join(parts.collect(), "https://x", 2000);
        assert!(text.len() <= 2000 && text.starts_with("[w/j] marker 0\n") && text.ends_with("[w/j] marker 999"));
    }
}
