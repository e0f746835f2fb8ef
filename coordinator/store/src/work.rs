//! Work that a commit asks for and some coordinator carries out later: tasks, timers, deliveries, retention.
//!
//! A row is claimed for a while, done, and deleted in the transaction of its outcome; a claim that lapses frees the row
//! for any other coordinator. A row that is added again while it is claimed loses the claim: the old claim can no
//! longer delete it, so a timer that is armed anew is never lost.

use serde::{Serialize, de::DeserializeOwned};
use strum::{EnumString, IntoStaticStr, VariantArray};

use domain::id::RunId;

use super::{
    Change, Millis, Store, StoreError,
    columns::{integer, natural},
    sql::{Connection, Row, query, query_scalar},
};

type Found<T> = Result<T, StoreError>;

/// What a row of work is for. Each kind has one handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum WorkKind {
    /// Fetch and plan a run.
    Plan,
    /// Close, store and publish a run's log.
    FinalizeLog,
    /// Deliver [`domain::run::RunEvent::Due`] to a job at a moment.
    Wake,
    /// Deliver [`domain::run::RunEvent::Expired`] to a run at a moment.
    Expire,
    /// Say what is new of a run and its jobs, and say again what would expire.
    ReportRun,
    /// Find out whether a repository is to be served, and say so.
    Serve,
    /// Send one event to one relay of ours; the lane is the relay.
    Publish,
    /// Send one event to one relay that is not ours; the lane is the relay.
    PublishToOthers,
    /// Send one delivery to one webhook; the lane is its URL.
    Webhook,
    /// Look what happened to a followed repository, and start what that starts.
    Trigger,
    /// Remove what is past its retention. Its rows are there from the start, and added again where others complete.
    Retain,
}

impl WorkKind {
    /// The word in the store and in metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A row to add. An id that exists already is overwritten: its tries start anew, and a claim on it is void.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWork {
    /// Unique; made of what is to be done, so that asking twice is one row.
    pub id: String,
    /// Which handler does it.
    pub kind: WorkKind,
    /// The run it belongs to, if any: removed with that run.
    pub run: Option<RunId>,
    /// Rows of one kind and lane are done one after the other where the handler asks for it; empty: none.
    pub lane: String,
    /// JSON for the handler; may be empty.
    pub payload: String,
    /// When it was added.
    pub made_at: Millis,
    /// Not before.
    pub due: Millis,
}

impl NewWork {
    /// Work without lane or payload, due at once.
    pub fn new(id: impl Into<String>, kind: WorkKind, run: Option<&RunId>, now: Millis) -> Self {
        let (lane, payload) = Default::default();
        Self { id: id.into(), kind, run: run.cloned(), lane, payload, made_at: now, due: now }
    }

    /// The same with a payload as JSON.
    pub fn with_payload(self, payload: &impl Serialize) -> Result<Self, StoreError> {
        Ok(Self { payload: serde_json::to_string(payload)?, ..self })
    }

    /// The same in a lane.
    pub fn in_lane(self, lane: impl Into<String>) -> Self {
        Self { lane: lane.into(), ..self }
    }

    /// The same, not before `due`.
    pub fn due_at(self, due: Millis) -> Self {
        Self { due, ..self }
    }
}

impl From<NewWork> for Change {
    fn from(new: NewWork) -> Self {
        Self::Work(WorkChange::Add(new))
    }
}

/// A row that is claimed: nobody else does it before the claim lapses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedWork {
    /// As in [`NewWork`].
    pub id: String,
    /// As in [`NewWork`].
    pub kind: WorkKind,
    /// As in [`NewWork`].
    pub run: Option<RunId>,
    /// As in [`NewWork`].
    pub lane: String,
    /// As in [`NewWork`].
    pub payload: String,
    /// Order of making; unique.
    pub sequence: u64,
    /// As in [`NewWork`].
    pub made_at: Millis,
    /// When it was due.
    pub due: Millis,
    /// How often it was claimed, this claim included. Counted when it is claimed, so that work which kills its process
    /// is counted too.
    pub tries: u32,
    /// Which claim: its outcome counts only as long as the row still carries this.
    pub claim: String,
}

impl ClaimedWork {
    /// Reads the payload.
    ///
    /// # Errors
    /// It is of another shape, e.g. written by a newer version.
    pub fn read_payload<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        Ok(serde_json::from_str(&self.payload)?)
    }

    /// It is done, or given up: the row goes, unless it was added again meanwhile.
    pub fn complete(&self) -> Change {
        Change::Work(WorkChange::Complete { id: self.id.clone(), claim: self.claim.clone() })
    }

    /// It failed and is tried again at `due`.
    pub fn retry(&self, due: Millis, failure: impl Into<String>) -> Change {
        let (id, claim, failure) = (self.id.clone(), self.claim.clone(), failure.into());
        Change::Work(WorkChange::Retry { id, claim, due, failure })
    }

    /// It was not tried: the row is free again, and this claim does not count as a try.
    pub fn release(&self) -> Change {
        Change::Work(WorkChange::Release { id: self.id.clone(), claim: self.claim.clone() })
    }
}

/// A change of work. Outcomes of a claim that is no longer the row's change nothing, and are no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkChange {
    /// Add a row, or overwrite the one with this id.
    Add(NewWork),
    /// Remove a row by its id, claimed or not.
    Remove {
        /// Id of the row.
        id: String,
    },
    /// See [`ClaimedWork::complete`].
    Complete {
        /// Id of the row.
        id: String,
        /// Which claim.
        claim: String,
    },
    /// See [`ClaimedWork::retry`].
    Retry {
        /// Id of the row.
        id: String,
        /// Which claim.
        claim: String,
        /// When it is tried again.
        due: Millis,
        /// What went wrong, in one sentence.
        failure: String,
    },
    /// See [`ClaimedWork::release`].
    Release {
        /// Id of the row.
        id: String,
        /// Which claim.
        claim: String,
    },
    /// Make a claim last longer.
    Renew {
        /// Which claim; all its rows.
        claim: String,
        /// When it lapses now.
        until: Millis,
    },
    /// Free what a coordinator claimed in an earlier life of its process.
    ReleaseClaimsOf {
        /// Id of the coordinator: claims begin with it and a slash.
        coordinator: String,
    },
}

/// How the rows of one lane relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneOrder {
    /// Rows are independent of each other; lanes mean nothing.
    Independent,
    /// One row of a lane at a time, whichever is due first: a place that hangs delays no other.
    OneAtATime,
    /// The rows of a lane in the order of making, up to `batch` of them in one claim. The first row that has to wait
    /// holds those behind it back.
    InOrder {
        /// Most rows in one claim.
        batch: u32,
    },
}

/// Rows of one kind that a coordinator has hands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimit {
    /// Which kind.
    pub kind: WorkKind,
    /// Most rows, or most lanes where the kind has lanes.
    pub limit: u32,
    /// How lanes are treated.
    pub lanes: LaneOrder,
}

/// A claim on due work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// How much of which kind.
    pub limits: Vec<ClaimLimit>,
    /// Unique to this claim: `<coordinator id>/<uuid>`.
    pub claim: String,
    /// The store's clock.
    pub now: Millis,
    /// When the claim lapses.
    pub until: Millis,
}

impl Store {
    /// Claims due work. Rows of one lane come in the order of making. A power failure may undo the claim and what the
    /// rows rest on: who acts outside by them waits for [`Store::synced`] first.
    ///
    /// # Errors
    /// The store can't be written.
    pub async fn claim_work(&self, request: ClaimRequest) -> Found<Vec<ClaimedWork>> {
        self.transaction_visible(&[], |connection| Box::pin(async move { claim(connection, &request).await })).await
    }

    /// When the next row becomes due after `now`. Rows due before are claimed already, or wait for a free hand.
    pub async fn next_work_due(&self, now: Millis) -> Found<Option<Millis>> {
        // Of each kind the index has the first one at hand.
        let of_kind = |kind: &WorkKind| {
            format!("SELECT min(due) AS due FROM work WHERE kind = '{kind}' AND due > $1", kind = kind.as_str())
        };
        let firsts: Vec<String> = WorkKind::VARIANTS.iter().map(of_kind).collect();
        let statement = query_scalar(format!("SELECT min(due) FROM ({}) AS firsts", firsts.join(" UNION ALL ")));
        let due: Option<i64> = statement.bind(integer(now)).fetch_one(&self.readers).await?;
        Ok(due.map(i64::unsigned_abs))
    }

    /// Rows that belong to a run, in the order of making.
    pub async fn work_of(&self, run: &RunId) -> Found<Vec<ClaimedWork>> {
        let found = query(
            "SELECT sequence, id, kind, run, lane, payload, made_at, due, tries, claimed_by FROM work
             WHERE run = $1 ORDER BY sequence",
        );
        found.bind(run).fetch_all(&self.readers).await?.iter().map(claimed).collect()
    }
}

impl Store {
    /// Ids of the rows of one kind in a lane, in the order of making.
    pub async fn work_in_lane(&self, kind: WorkKind, lane: &str) -> Found<Vec<String>> {
        let statement = query_scalar("SELECT id FROM work WHERE kind = $1 AND lane = $2 ORDER BY sequence");
        statement.bind(kind.as_str()).bind(lane).fetch_all(&self.readers).await
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &WorkChange) -> Result<(), StoreError> {
    let statement = match change {
        WorkChange::Add(new) => query(
            "INSERT INTO work (id, kind, run, lane, payload, made_at, due, tries, claimed_by, claimed_until, failure)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0, NULL, 0, '')
             ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, run = excluded.run, lane = excluded.lane,
                 payload = excluded.payload, made_at = excluded.made_at, due = excluded.due, tries = 0,
                 claimed_by = NULL, claimed_until = 0, failure = ''",
        )
        .bind(&new.id)
        .bind(new.kind.as_str())
        .bind(new.run.as_ref())
        .bind(&new.lane)
        .bind(&new.payload)
        .bind(integer(new.made_at))
        .bind(integer(new.due)),
        WorkChange::Remove { id } => query("DELETE FROM work WHERE id = $1").bind(id),
        WorkChange::Complete { id, claim } => {
            query("DELETE FROM work WHERE id = $1 AND claimed_by = $2").bind(id).bind(claim)
        }
        WorkChange::Retry { id, claim, due, failure } => query(
            "UPDATE work SET due = $3, failure = $4, claimed_by = NULL, claimed_until = 0
             WHERE id = $1 AND claimed_by = $2",
        )
        .bind(id)
        .bind(claim)
        .bind(integer(*due))
        .bind(failure),
        WorkChange::Release { id, claim } => query(
            "UPDATE work SET tries = tries - 1, claimed_by = NULL, claimed_until = 0 WHERE id = $1 AND claimed_by = $2",
        )
        .bind(id)
        .bind(claim),
        WorkChange::Renew { claim, until } => {
            query("UPDATE work SET claimed_until = $2 WHERE claimed_by = $1").bind(claim).bind(integer(*until))
        }
        // A range of the index: `/` is followed by `0` in the order of bytes.
        WorkChange::ReleaseClaimsOf { coordinator } => {
            query("UPDATE work SET claimed_by = NULL, claimed_until = 0 WHERE claimed_by >= $1 AND claimed_by < $2")
                .bind(format!("{coordinator}/"))
                .bind(format!("{coordinator}0"))
        }
    };
    statement.execute(connection).await?;
    Ok(())
}

/// Claims what is due, kind by kind.
pub(super) async fn claim(connection: &mut Connection, request: &ClaimRequest) -> Found<Vec<ClaimedWork>> {
    let mut all = Vec::new();
    for limit in request.limits.iter().filter(|limit| limit.limit > 0) {
        match limit.lanes {
            LaneOrder::Independent => {
                let due = query_scalar(
                    "SELECT sequence FROM work WHERE kind = $1 AND due <= $2 AND claimed_until <= $2
                     ORDER BY due, sequence LIMIT $3",
                )
                .bind(limit.kind.as_str())
                .bind(integer(request.now))
                .bind(i64::from(limit.limit));
                let due: Vec<i64> = due.fetch_all(&mut *connection).await?;
                for sequence in due {
                    all.extend(take(connection, request, limit.kind, "", [sequence, sequence]).await?);
                }
            }
            LaneOrder::OneAtATime | LaneOrder::InOrder { .. } => {
                for lane in free_lanes(connection, limit, request.now).await? {
                    if let Some(span) = next_in_lane(connection, limit, &lane, request.now).await? {
                        all.extend(take(connection, request, limit.kind, &lane, span).await?);
                    }
                }
            }
        }
    }
    Ok(all)
}

/// Lanes in which nothing is claimed, and whose first row (`InOrder`) or any row is due.
async fn free_lanes(connection: &mut Connection, limit: &ClaimLimit, now: Millis) -> Found<Vec<String>> {
    // Lanes are few and rows may be many: the index is stepped through from one lane to the next.
    let text = match limit.lanes {
        LaneOrder::InOrder { .. } => {
            "WITH RECURSIVE lanes (lane) AS (
                 SELECT min(lane) FROM work WHERE kind = $1
                 UNION ALL
                 SELECT (SELECT min(w.lane) FROM work w WHERE w.kind = $1 AND w.lane > lanes.lane)
                 FROM lanes WHERE lanes.lane IS NOT NULL
             )
             SELECT h.lane FROM lanes JOIN work h ON h.sequence =
                 (SELECT min(w.sequence) FROM work w WHERE w.kind = $1 AND w.lane = lanes.lane)
             WHERE h.due <= $2 AND h.claimed_until <= $2 ORDER BY h.due, h.lane LIMIT $3"
        }
        LaneOrder::OneAtATime | LaneOrder::Independent => {
            "WITH RECURSIVE lanes (lane) AS (
                 SELECT min(lane) FROM work WHERE kind = $1
                 UNION ALL
                 SELECT (SELECT min(w.lane) FROM work w WHERE w.kind = $1 AND w.lane > lanes.lane)
                 FROM lanes WHERE lanes.lane IS NOT NULL
             )
             SELECT lanes.lane FROM lanes WHERE lanes.lane IS NOT NULL
                 AND EXISTS (SELECT 1 FROM work w WHERE w.kind = $1 AND w.lane = lanes.lane AND w.due <= $2)
                 AND NOT EXISTS (SELECT 1 FROM work w WHERE w.kind = $1 AND w.lane = lanes.lane
                     AND w.claimed_until > $2)
             ORDER BY lanes.lane LIMIT $3"
        }
    };
    let statement = query_scalar(text).bind(limit.kind.as_str()).bind(integer(now)).bind(i64::from(limit.limit));
    statement.fetch_all(connection).await
}

/// First and last row to claim of a lane.
async fn next_in_lane(
    connection: &mut Connection,
    limit: &ClaimLimit,
    lane: &str,
    now: Millis,
) -> Found<Option<[i64; 2]>> {
    let (text, most) = match limit.lanes {
        LaneOrder::InOrder { batch } => {
            ("SELECT sequence, due FROM work WHERE kind = $1 AND lane = $2 ORDER BY sequence LIMIT $3", batch)
        }
        LaneOrder::OneAtATime | LaneOrder::Independent => {
            ("SELECT sequence, due FROM work WHERE kind = $1 AND lane = $2 ORDER BY due, sequence LIMIT $3", 1)
        }
    };
    let statement = query(text).bind(limit.kind.as_str()).bind(lane).bind(i64::from(most));
    let mut span = None;
    for row in statement.fetch_all(connection).await? {
        if natural(&row, 1)? > now {
            break;
        }
        let sequence: i64 = row.get(0)?;
        span = Some(span.map_or([sequence; 2], |[first, _]: [i64; 2]| [first, sequence]));
    }
    Ok(span)
}

async fn take(
    connection: &mut Connection,
    request: &ClaimRequest,
    kind: WorkKind,
    lane: &str,
    [first, last]: [i64; 2],
) -> Found<Vec<ClaimedWork>> {
    let statement = query(
        "UPDATE work SET claimed_by = $1, claimed_until = $2, tries = tries + 1
         WHERE kind = $3 AND sequence BETWEEN $4 AND $5 AND claimed_until <= $6 AND (lane = $7 OR $7 = '')
         RETURNING sequence, id, kind, run, lane, payload, made_at, due, tries, claimed_by",
    );
    let statement = statement
        .bind(&request.claim)
        .bind(integer(request.until))
        .bind(kind.as_str())
        .bind(first)
        .bind(last)
        .bind(integer(request.now))
        .bind(lane);
    let found = statement.fetch_all(connection).await?;
    let mut rows: Vec<ClaimedWork> = found.iter().map(claimed).collect::<Found<_>>()?;
    // The order of RETURNING is not defined.
    rows.sort_by_key(|row| row.sequence);
    Ok(rows)
}

fn claimed(row: &Row) -> Found<ClaimedWork> {
    let kind: String = row.get(2)?;
    Ok(ClaimedWork {
        sequence: natural(row, 0)?,
        id: row.get(1)?,
        kind: kind
            .parse()
            .map_err(|_| StoreError::Database(format!("stored work has the kind `{kind}`: is this version older?")))?,
        run: row.get(3)?,
        lane: row.get(4)?,
        payload: row.get(5)?,
        made_at: natural(row, 6)?,
        due: natural(row, 7)?,
        tries: u32::try_from(natural(row, 8)?).unwrap_or(u32::MAX),
        claim: row.get::<Option<String>>(9)?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
