//! The statements of each change.

use std::{collections::BTreeSet, sync::Arc};

use domain::{
    group::Group,
    id::RunId,
    schedule::{QueuedJob, WaitUpdate},
};

use super::{
    Blob, Change, ChangeNotification, FollowChange, LeaseChange, Outgoing, PendingEvent, QueueChange, StoreError,
    WebhookDeliveryChange, WorkChange, WorkerChange, WorkerRow, artifacts, caches,
    columns::{fenced, integer},
    counters::next,
    definitions, followed, leases, pull_requests, reports, runs, services,
    sql::{Connection, query},
    test_reports, webhook_deliveries, work, workers,
};

/// What subscribers are told of a change.
pub(super) fn notification_of(change: &Change) -> Option<ChangeNotification> {
    match change {
        Change::Run(_) | Change::WaitReasons(_) => Some(ChangeNotification::Runs),
        Change::Queue(_) | Change::Unqueue { .. } => Some(ChangeNotification::Queue),
        Change::Outbox(_) => Some(ChangeNotification::Outbox),
        Change::WebhookDelivery(WebhookDeliveryChange::Add(_)) => Some(ChangeNotification::Work),
        Change::Work(WorkChange::Renew { .. } | WorkChange::Complete { .. } | WorkChange::Remove { .. }) => None,
        Change::Work(_) => Some(ChangeNotification::Work),
        Change::Lease(LeaseChange::Cancel { .. }) => Some(ChangeNotification::Leases),
        Change::Workers(WorkerChange::Draining { .. }) => Some(ChangeNotification::Workers),
        Change::Follow(FollowChange::Looked(scan)) if !scan.moved => None,
        Change::Follow(_) => Some(ChangeNotification::Followed),
        _ => None,
    }
}

/// What a copy of the queue in memory has to follow.
pub(super) fn queue_change(change: Change) -> Option<QueueChange> {
    match change {
        Change::Queue(job) => Some(QueueChange::Added(Arc::new(job))),
        Change::Unqueue { run, job } => Some(QueueChange::Removed((run, job))),
        _ => None,
    }
}

pub(super) async fn apply(connection: &mut Connection, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Seen { id, at } => seen(connection, id, *at).await,
        Change::Run(change) => runs::write(connection, change).await,
        Change::WaitReasons(updates) => wait_reasons(connection, updates).await,
        Change::Report(report) => {
            reports::write(connection, &report.run, &report.job, report.attempt, &report.report).await
        }
        Change::Queue(queued) => queue(connection, queued).await,
        Change::Unqueue { run, job } => {
            let statement = query("DELETE FROM queue WHERE run = $1 AND job = $2").bind(run).bind(job);
            done(statement.execute(connection).await)
        }
        Change::Outbox(outgoing) => outbox(connection, outgoing).await,
        Change::Delivered { event, relay, answer, at } => {
            let statement = query(
                "INSERT INTO deliveries (event, relay, answer, at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (event, relay) DO UPDATE SET answer = excluded.answer, at = excluded.at",
            );
            done(statement.bind(event).bind(relay).bind(answer).bind(integer(*at)).execute(connection).await)
        }
        Change::OutboxDone { event } => {
            done(query("UPDATE outbox SET done = 1 WHERE event = $1").bind(event).execute(connection).await)
        }
        Change::Secrets { run, sealed, wrapped_key } => secrets(connection, run, sealed, wrapped_key).await,
        Change::EraseSecrets { run } => {
            query("DELETE FROM secrets WHERE run = $1").bind(run).execute(&mut *connection).await?;
            done(query("DELETE FROM run_keys WHERE run = $1").bind(run).execute(connection).await)
        }
        Change::AddPending(parked) => park(connection, parked).await,
        Change::RemovePending { id } => {
            done(query("DELETE FROM parked WHERE id = $1").bind(id).execute(connection).await)
        }
        Change::Cursor { relay, seen } => {
            let statement = query(
                "INSERT INTO cursors (relay, seen) VALUES ($1, $2)
                 ON CONFLICT (relay) DO UPDATE SET seen = excluded.seen WHERE cursors.seen < excluded.seen",
            );
            done(statement.bind(relay).bind(integer(*seen)).execute(connection).await)
        }
        Change::Blob(stored) => blob(connection, stored).await,
        Change::BlobGone { sha256, owner } => {
            let statement = query("DELETE FROM blobs WHERE sha256 = $1 AND owner = $2").bind(sha256).bind(owner);
            done(statement.execute(connection).await)
        }
        Change::Group(wanted) => group(connection, wanted).await,
        Change::Worker(row) => worker(connection, row).await,
        Change::Cache(change) => caches::apply(connection, change).await,
        Change::Artifact(change) => artifacts::apply(connection, change).await,
        Change::TestReport(report) => test_reports::write(connection, report).await,
        Change::DefinitionScan(looked) => definitions::apply(connection, looked).await,
        Change::Service(change) => services::apply(connection, change).await,
        Change::WebhookDelivery(change) => webhook_deliveries::apply(connection, change).await,
        Change::Work(change) => work::apply(connection, change).await,
        Change::Lease(change) => leases::apply(connection, change).await,
        Change::Workers(change) => workers::apply(connection, change).await,
        Change::Follow(change) => followed::apply(connection, change).await,
        Change::PullRequest(change) => pull_requests::apply(connection, change).await,
    }
}

async fn seen(connection: &mut Connection, id: &str, at: u64) -> Result<(), StoreError> {
    let statement = query("INSERT INTO seen (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING");
    match statement.bind(id).bind(integer(at)).execute(connection).await? {
        0 => Err(StoreError::Seen(id.to_owned())),
        _ => Ok(()),
    }
}

async fn group(connection: &mut Connection, group: &Group) -> Result<(), StoreError> {
    let statement = if group.version == 0 {
        query(
            "INSERT INTO run_groups (name, version, holder, pending) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO NOTHING",
        )
    } else {
        query("UPDATE run_groups SET version = $2, holder = $3, pending = $4 WHERE name = $1 AND version = $2 - 1")
    };
    let statement = statement
        .bind(&group.key)
        .bind(integer(group.version))
        .bind(group.holder.as_ref().map(serde_json::to_string).transpose()?)
        .bind(serde_json::to_string(&group.pending)?);
    fenced(statement.execute(connection).await?, "group", &group.key)
}

async fn queue(connection: &mut Connection, queued: &QueuedJob) -> Result<(), StoreError> {
    let statement = query(
        "INSERT INTO queue (run, job, labels, avoid, owner, since, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (run, job) DO UPDATE SET labels = excluded.labels, avoid = excluded.avoid,
             owner = excluded.owner, since = excluded.since, reason = excluded.reason",
    )
    .bind(&queued.run)
    .bind(&queued.job)
    .bind(serde_json::to_string(&queued.labels)?)
    .bind(serde_json::to_string(&queued.avoid)?)
    .bind(&queued.owner)
    .bind(integer(queued.since))
    .bind(&queued.reason);
    done(statement.execute(connection).await)
}

/// Pages of the runs concerned are told: the runs count as changed, though no version of them is new.
async fn wait_reasons(connection: &mut Connection, updates: &[WaitUpdate]) -> Result<(), StoreError> {
    let mut runs: BTreeSet<&RunId> = BTreeSet::new();
    for WaitUpdate { run, job, reason } in updates {
        let statement = query("UPDATE queue SET reason = $3 WHERE run = $1 AND job = $2").bind(run).bind(job);
        if statement.bind(reason).execute(&mut *connection).await? > 0 {
            runs.insert(run);
        }
    }
    for run in runs {
        let statement =
            query("UPDATE runs SET changed = (SELECT coalesce(max(changed), 0) + 1 FROM runs) WHERE id = $1");
        statement.bind(run).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A second write of an event adds its signature; everything else of it is final.
async fn outbox(connection: &mut Connection, outgoing: &Outgoing) -> Result<(), StoreError> {
    let sequence = next(connection, "outbox").await?;
    let statement = query(
        "INSERT INTO outbox (event, sequence, unsigned, signature, signer, relays, run, made_at, done)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)
         ON CONFLICT (event) DO UPDATE SET signature = coalesce(outbox.signature, excluded.signature)",
    )
    .bind(&outgoing.event)
    .bind(integer(sequence))
    .bind(&outgoing.unsigned)
    .bind(outgoing.signature.as_ref())
    .bind(serde_json::to_string(&outgoing.signer)?)
    .bind(serde_json::to_string(&outgoing.relays)?)
    .bind(outgoing.run.as_ref())
    .bind(integer(outgoing.made_at));
    done(statement.execute(connection).await)
}

async fn secrets(
    connection: &mut Connection,
    run: &RunId,
    sealed: &[(String, Vec<u8>)],
    wrapped_key: &[u8],
) -> Result<(), StoreError> {
    // Values under an older data key could not be opened any more.
    query("DELETE FROM secrets WHERE run = $1").bind(run).execute(&mut *connection).await?;
    query(
        "INSERT INTO run_keys (run, wrapped) VALUES ($1, $2)
         ON CONFLICT (run) DO UPDATE SET wrapped = excluded.wrapped",
    )
    .bind(run)
    .bind(wrapped_key)
    .execute(&mut *connection)
    .await?;
    for (name, value) in sealed {
        query("INSERT INTO secrets (run, name, sealed) VALUES ($1, $2, $3)")
            .bind(run)
            .bind(name)
            .bind(value.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn park(connection: &mut Connection, parked: &PendingEvent) -> Result<(), StoreError> {
    let statement =
        query("INSERT INTO parked (id, waits_for, event, until) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING")
            .bind(&parked.id)
            .bind(&parked.waits_for)
            .bind(&parked.event)
            .bind(integer(parked.until));
    done(statement.execute(connection).await)
}

async fn blob(connection: &mut Connection, blob: &Blob) -> Result<(), StoreError> {
    let statement = query(
        "INSERT INTO blobs (sha256, owner, size, kind, public, stored_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (sha256, owner) DO UPDATE SET
             public = CASE WHEN excluded.public > blobs.public THEN excluded.public ELSE blobs.public END,
             expires_at = CASE WHEN excluded.expires_at > blobs.expires_at
                 THEN excluded.expires_at ELSE blobs.expires_at END",
    )
    .bind(&blob.sha256)
    .bind(&blob.owner)
    .bind(integer(blob.size))
    .bind(&blob.kind)
    .bind(i64::from(blob.public))
    .bind(integer(blob.stored_at))
    .bind(integer(blob.expires_at));
    done(statement.execute(connection).await)
}

/// A worker that comes back: that it is to get no jobs is its operator's word, and stays.
async fn worker(connection: &mut Connection, row: &WorkerRow) -> Result<(), StoreError> {
    let statement = query(
        "INSERT INTO workers (id, identity, name, labels, slots, seen_at, draining)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, name = excluded.name,
             labels = excluded.labels, slots = excluded.slots, seen_at = excluded.seen_at",
    )
    .bind(&row.id)
    .bind(&row.identity)
    .bind(&row.name)
    .bind(serde_json::to_string(&row.labels)?)
    .bind(i64::from(row.slots))
    .bind(integer(row.seen_at))
    .bind(i64::from(row.draining));
    done(statement.execute(connection).await)
}

fn done(result: Result<u64, StoreError>) -> Result<(), StoreError> {
    result.map(drop)
}
