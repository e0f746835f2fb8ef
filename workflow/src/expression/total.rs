//! One meter for many evaluations: each has limits of its own, and nothing says how many there are.
//!
//! It holds for what is evaluated in this thread while one piece of work is done. So the answer depends on the work alone.

use std::cell::Cell;

use super::{ExpressionError, ExpressionErrorKind};

thread_local! {
    /// Steps that are left; `None`: nobody counts.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Puts back what was before, also after a panic.
struct Restore(Option<usize>);

impl Drop for Restore {
    fn drop(&mut self) {
        LEFT.set(self.0);
    }
}

/// Does something whose evaluations may take so many steps together. Within another such work, that one's steps count.
pub(crate) fn within<T>(steps: usize, work: impl FnOnce() -> T) -> T {
    if LEFT.get().is_some() {
        return work();
    }
    let _restore = Restore(LEFT.replace(Some(steps)));
    work()
}

/// Counts steps that are about to be taken.
pub(crate) fn take(steps: usize) -> Result<(), ExpressionError> {
    let Some(left) = LEFT.get() else { return Ok(()) };
    // Once there are too few, there are none.
    let rest = left.checked_sub(steps.max(1));
    LEFT.set(Some(rest.unwrap_or(0)));
    rest.map(drop).ok_or_else(|| {
        let message = "The expressions of this workflow take too much together: use fewer of them, or smaller values";
        ExpressionError::new(ExpressionErrorKind::Limit, message, 0)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_within_one_work_and_not_beyond_it() {
        assert!(take(usize::MAX).is_ok(), "nobody counts");
        within(10, || {
            assert!(take(6).is_ok());
            within(100, || assert!(take(6).is_err(), "the outer one counts"));
            assert!(take(1).is_err(), "and none is left");
        });
        within(10, || take(10).unwrap());
        assert!(take(usize::MAX).is_ok());
    }
}
