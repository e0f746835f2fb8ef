//! What a relay has stored and we have not read yet: spans of time, each read page by page from its end to its begin.

/// A span of time (s since the Unix epoch, both ends included).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) until: u64,
}

/// Spans that are not read yet. The one that is being read is read to its begin before another's turn comes: a relay that
/// always has more does not keep us from what is older.
#[derive(Debug, Default)]
pub(super) struct Unread {
    current: Option<Span>,
    others: Vec<Span>,
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

    /// The part of which the newest page is to be read next, until [`Self::page_was_read`].
    pub(super) fn page(&mut self) -> Option<Span> {
        if self.current.is_none() {
            let newest = self.others.iter().enumerate().max_by_key(|(_, span)| span.until).map(|(number, _)| number)?;
            self.current = Some(self.others.swap_remove(newest));
        }
        self.current
    }

    /// A page was read; if it was full, until when (s) there may be more. A page of one second is passed over as a whole:
    /// nothing tells the rest of it from what came.
    pub(super) fn page_was_read(&mut self, more: Option<u64>) {
        self.current = self.current.zip(more).and_then(|(span, more)| {
            let until = if more < span.until { more } else { span.until.checked_sub(1)? };
            (until >= span.from).then_some(Span { until, ..span })
        });
    }

    /// From when on (s) there is something unread.
    pub(super) fn since(&self) -> Option<u64> {
        self.current.iter().chain(&self.others).map(|span| span.from).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, until: u64) -> Span {
        Span { from, until }
    }

    #[test]
    fn pages_go_back_in_time_even_where_a_whole_page_is_of_one_second() {
        let mut unread = Unread::default();
        unread.add(span(10, 100));
        for (more, next) in [(90, 90), (90, 89), (89, 88), (70, 70), (10, 10)] {
            assert!(unread.page().is_some());
            unread.page_was_read(Some(more));
            assert_eq!(unread.page(), Some(span(10, next)));
        }
        unread.page_was_read(Some(10));
        assert_eq!((unread.page(), unread.since()), (None, None));
    }

    #[test]
    fn what_is_older_is_read_to_its_end_however_much_comes_meanwhile() {
        let mut unread = Unread::default();
        unread.add(span(0, 1000));
        let mut at = 1000;
        for until in (0..1000).rev().step_by(100) {
            assert_eq!(unread.page(), Some(span(0, at)));
            (at, _) = (until, unread.add(span(until + 1000, until + 5000)));
            unread.page_was_read(Some(until));
        }
        unread.page_was_read(None);
        assert_eq!(unread.page(), Some(span(1099, 5999)), "what came meanwhile, as one");
    }

    #[test]
    fn a_span_that_touches_others_is_one_with_them() {
        let mut unread = Unread::default();
        [span(0, 10), span(30, 40), span(60, 70), span(35, 61)].into_iter().for_each(|span| unread.add(span));
        assert_eq!(unread.since(), Some(0));
        assert_eq!(unread.page(), Some(span(30, 70)));
        unread.page_was_read(None);
        assert_eq!(unread.page(), Some(span(0, 10)));
    }
}
