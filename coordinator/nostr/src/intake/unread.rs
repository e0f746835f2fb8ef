//! What a relay has stored and we have not read yet: spans of time, each read page by page from its end to its begin.
//!
//! Nothing in a question tells one part of a second from another. Where a page of one second was full, what known authors
//! sent in it is asked for by author, in smaller and smaller groups; what strangers sent beyond the page is passed over.

use nostr::PublicKey;

/// Authors of one question; relays refuse very long ones.
const AUTHORS: usize = 100;

/// A span of time (s since the Unix epoch, both ends included).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// What a relay is asked for at a time: the newest of a span, of these authors or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) span: Span,
    pub(super) authors: Option<Vec<PublicKey>>,
}

/// What was not all read of one second.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PassedOver {
    /// The second (since the Unix epoch).
    pub(super) second: u64,
    /// Whose events; `None`: those of authors that are not known.
    pub(super) author: Option<PublicKey>,
}

/// Spans that are not read yet. The one that is being read is read to its begin before another's turn comes: a relay that
/// always has more does not keep us from what is older.
#[derive(Debug, Default)]
pub(super) struct Unread {
    current: Option<Span>,
    others: Vec<Span>,
    /// Seconds of which a page was full, by author. The last is the next.
    by_author: Vec<(u64, Vec<PublicKey>)>,
}

impl Unread {
    /// Notes a span, as one with those that it touches.
    pub(super) fn add(&mut self, mut span: Span) {
        self.others.retain(|other| {
            let apart = other.until < span.from || span.until < other.from;
            if !apart {
                span = Span { from: span.from.min(other.from), until: span.until.max(other.until) };
            }
            apart
        });
        self.others.push(span);
    }

    /// What is to be asked next, until [`Self::page_was_read`].
    pub(super) fn question(&mut self) -> Option<Question> {
        if let Some((second, authors)) = self.by_author.last() {
            let span = Span { from: *second, until: *second };
            return Some(Question { span, authors: Some(authors.clone()) });
        }
        if self.current.is_none() {
            let newest = self.others.iter().enumerate().max_by_key(|(_, span)| span.until).map(|(number, _)| number)?;
            self.current = Some(self.others.swap_remove(newest));
        }
        self.current.map(|span| Question { span, authors: None })
    }

    /// The answer was read; if it was full, until when (s) there may be more. Who is known is asked for where it was full
    /// of one second. Returns what is passed over.
    pub(super) fn page_was_read(
        &mut self,
        more: Option<u64>,
        known: impl FnOnce() -> Vec<PublicKey>,
    ) -> Option<PassedOver> {
        if let Some((second, mut authors)) = self.by_author.pop() {
            return match (more, authors.len()) {
                (None, _) | (_, 0) => None,
                (_, 1) => Some(PassedOver { second, author: authors.pop() }),
                (_, number) => {
                    let half = authors.split_off(number / 2);
                    self.by_author.extend([(second, authors), (second, half)]);
                    None
                }
            };
        }
        let (Some(span), Some(more)) = (self.current.take(), more) else { return None };
        let is_one_second = more >= span.until;
        let until = if is_one_second { span.until.checked_sub(1) } else { Some(more) };
        self.current = until.filter(|until| *until >= span.from).map(|until| Span { until, ..span });
        is_one_second.then(|| {
            let groups = known().chunks(AUTHORS).map(|some| (span.until, some.to_vec())).collect::<Vec<_>>();
            self.by_author.extend(groups);
            PassedOver { second: span.until, author: None }
        })
    }

    /// From when on (s) there is something unread.
    pub(super) fn since(&self) -> Option<u64> {
        let seconds = self.by_author.iter().map(|(second, _)| *second);
        self.current.iter().chain(&self.others).map(|span| span.from).chain(seconds).min()
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    fn span(from: u64, until: u64) -> Span {
        Span { from, until }
    }

    fn asked(unread: &mut Unread) -> Option<Span> {
        unread.question().map(|question| question.span)
    }

    fn read(unread: &mut Unread, more: Option<u64>) -> Option<PassedOver> {
        unread.page_was_read(more, Vec::new)
    }

    #[test]
    fn pages_go_back_in_time_even_where_a_whole_page_is_of_one_second() {
        let mut unread = Unread::default();
        unread.add(span(10, 100));
        for (more, next, passed_over) in
            [(90, 90, None), (90, 89, Some(90)), (89, 88, Some(89)), (70, 70, None), (10, 10, None)]
        {
            assert!(unread.question().is_some());
            let passed_over = passed_over.map(|second| PassedOver { second, author: None });
            assert_eq!(read(&mut unread, Some(more)), passed_over);
            assert_eq!(asked(&mut unread), Some(span(10, next)));
        }
        read(&mut unread, Some(10));
        assert_eq!((unread.question(), unread.since()), (None, None));
    }

    #[test]
    fn attack_59_what_known_authors_sent_in_a_second_that_strangers_filled_is_asked_for_by_author() {
        let mut known: Vec<PublicKey> = (0..150).map(|_| Keys::generate().public_key()).collect();
        known.sort_unstable();
        // One of them sends more in the second than a relay gives at a time.
        let busy = known[42];
        let mut unread = Unread::default();
        unread.add(span(10, 100));
        assert_eq!(asked(&mut unread), Some(span(10, 100)));
        assert_eq!(unread.page_was_read(Some(100), || known.clone()), Some(PassedOver { second: 100, author: None }));
        assert_eq!(unread.since(), Some(10));
        let (mut answered, mut passed_over, mut questions) = (Vec::new(), Vec::new(), 0);
        while let Some(Question { span: Span { from: 100, until: 100 }, authors: Some(authors) }) = unread.question() {
            assert!(authors.len() <= AUTHORS);
            questions += 1;
            let full = authors.contains(&busy).then_some(100);
            answered.extend(full.is_none().then_some(authors).into_iter().flatten());
            passed_over.extend(unread.page_was_read(full, Vec::new));
        }
        answered.sort_unstable();
        known.retain(|key| *key != busy);
        assert_eq!(answered, known);
        assert_eq!(passed_over, [PassedOver { second: 100, author: Some(busy) }]);
        assert!(questions < 20, "{questions}");
        assert_eq!(asked(&mut unread), Some(span(10, 99)), "and what is older afterwards");
    }

    #[test]
    fn what_is_older_is_read_to_its_end_however_much_comes_meanwhile() {
        let mut unread = Unread::default();
        unread.add(span(0, 1000));
        let mut at = 1000;
        for until in (0..1000).rev().step_by(100) {
            assert_eq!(asked(&mut unread), Some(span(0, at)));
            (at, _) = (until, unread.add(span(until + 1000, until + 5000)));
            read(&mut unread, Some(until));
        }
        read(&mut unread, None);
        assert_eq!(asked(&mut unread), Some(span(1099, 5999)), "what came meanwhile, as one");
    }

    #[test]
    fn a_span_that_touches_others_is_one_with_them() {
        let mut unread = Unread::default();
        [span(0, 10), span(30, 40), span(60, 70), span(35, 61)].into_iter().for_each(|span| unread.add(span));
        assert_eq!(unread.since(), Some(0));
        assert_eq!(asked(&mut unread), Some(span(30, 70)));
        read(&mut unread, None);
        assert_eq!(asked(&mut unread), Some(span(0, 10)));
    }
}
