//! Answers of relays that are asked for before anything waits for them: while a request is being stored.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{RepositoryMetadata, SourceError};

/// Requests for which relays are asked ahead: as many as are planned at a time, for each answer may take as much memory, and
/// ask as many relays, as a plan does.
const KEPT: usize = 8;
/// An answer that nobody took is forgotten after this: what relays have changes.
const AGE: Duration = Duration::from_secs(10);

type Answer = Result<RepositoryMetadata, SourceError>;

/// By request: when it was begun, and the task that asks.
#[derive(Debug, Default)]
pub(super) struct LookAhead(Mutex<HashMap<String, (Instant, AbortOnDropHandle<Answer>)>>);

impl LookAhead {
    /// Begins to ask for a request, if there is room. Dropping the answer ends the asking.
    pub(super) fn begin(&self, request: &str, look: impl Future<Output = Answer> + Send + 'static) {
        let mut begun = self.0.lock();
        begun.retain(|_, (at, _)| at.elapsed() < AGE);
        if begun.len() < KEPT && !request.is_empty() {
            begun.insert(request.to_owned(), (Instant::now(), AbortOnDropHandle::new(tokio::spawn(look))));
        }
    }

    /// The answer for a request, once; `None`: none was asked for, or it is too old.
    pub(super) async fn take(&self, request: &str) -> Option<Answer> {
        let (at, task) = self.0.lock().remove(request)?;
        if at.elapsed() >= AGE {
            return None;
        }
        task.await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn answer() -> Answer {
        Err(SourceError::NotYet("nothing".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_taken_once_and_only_while_it_is_young() {
        let looks = LookAhead::default();
        looks.begin("a", answer());
        assert!(looks.take("a").await.is_some() && looks.take("a").await.is_none());
        looks.begin("b", answer());
        tokio::time::advance(AGE).await;
        assert!(looks.take("b").await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_begun_and_old_ones_make_room() {
        let looks = LookAhead::default();
        for number in 0..=KEPT {
            looks.begin(&number.to_string(), answer());
        }
        assert!(looks.take(&KEPT.to_string()).await.is_none() && looks.take("0").await.is_some());
        tokio::time::advance(AGE).await;
        looks.begin("new", answer());
        assert_eq!(looks.0.lock().len(), 1);
    }
}
