//! Finds the run that a request is about. A caller who may not read it gets the same answer as for a missing run.

use super::{Refusal, Web, auth::Caller};
use domain::run;

/// A run by its id, its number in the pool, or an event's id, if this caller may see it.
pub(super) async fn find(web: &Web, caller: &Caller, id: &str) -> Result<run::RunState, Refusal> {
    let mut found = web.store.run(&id.into()).await?;
    if found.is_none() {
        found = web.store.run_by_event(id).await?;
    }
    if let (None, Ok(serial)) = (&found, id.parse()) {
        found = web.store.run_by_serial(serial).await?;
    }
    found.filter(|state| caller.reader.may_read(&state.visibility)).ok_or_else(|| Refusal::no_run(caller))
}
