//! Runs as rows: written with the columns that lists and searches use, and listed from those columns alone.

use std::str::FromStr;

use super::{
    Filter, Page, PhaseName, Reader, RunChange, SEARCHED, Status, Store, StoreError, Summary,
    columns::{fenced, integer, natural},
    run_parts,
    sql::{Connection, Query, Row, Value, query, query_scalar},
};
use domain::run::{RunPhase, RunState, Visibility, WaitCondition, explain_failure};
use strum::VariantArray;
use workflow::{git_ref, plan::Conclusion};

const LISTED: &str = "id, serial, number, attempt, previous, repository, workflow, name, commit_id, branch, event, \
                      actor, phase, status, wait_kind, wait_name, wait_until, wait_holder, conclusion, created_at, started_at, \
                      ended_at, changed, title, failed, (SELECT min(reason) FROM queue WHERE run = runs.id AND reason <> '')";

impl Status {
    /// Every status.
    pub fn all() -> &'static [Self] {
        Self::VARIANTS
    }

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The status of a run.
    pub fn of(state: &RunState) -> Self {
        match &state.phase {
            RunPhase::Planning => Self::Planning,
            RunPhase::Waiting { .. } => Self::Waiting,
            RunPhase::Active if state.held_back().is_some() => Self::Waiting,
            RunPhase::Active if state.started_at.is_none() => Self::Queued,
            RunPhase::Active => Self::Running,
            RunPhase::Finalizing { .. } => Self::Finalizing,
            RunPhase::Done { end, .. } => match end.conclusion {
                Conclusion::Success => Self::Success,
                Conclusion::Failure => Self::Failure,
                Conclusion::Cancelled => Self::Cancelled,
                Conclusion::Skipped => Self::Skipped,
            },
        }
    }
}

impl PhaseName {
    fn of(phase: &RunPhase) -> Self {
        match phase {
            RunPhase::Planning => Self::Planning,
            RunPhase::Waiting { .. } => Self::Waiting,
            RunPhase::Active => Self::Active,
            RunPhase::Finalizing { .. } => Self::Finalizing,
            RunPhase::Done { .. } => Self::Done,
        }
    }
}

/// A condition on rows, with the values of its placeholders.
struct Where {
    text: String,
    values: Vec<Value>,
}

impl Where {
    /// Only given fields become conditions: with a placeholder for "any" the index would not be used.
    fn new(filter: &Filter) -> Self {
        let mut conditions = Self { text: String::new(), values: Vec::new() };
        let columns = [
            ("repository", &filter.repository),
            ("workflow", &filter.workflow),
            ("branch", &filter.branch),
            ("event", &filter.event),
            ("actor", &filter.actor),
            ("request", &filter.request),
        ];
        for (column, wanted) in columns {
            if let Some(wanted) = wanted {
                conditions.and(&format!("{column} = $"), Value::Text(wanted.clone()));
            }
        }
        if let Some(name) = &filter.repository_name {
            conditions.like("repository", format!("%:{}", escaped(name)));
        }
        for word in &filter.words {
            let place = "lower(name || ' ' || title || ' ' || branch || ' ' || repository)";
            conditions.like(place, format!("%{}%", escaped(&word.to_lowercase())));
        }
        if !filter.words.is_empty() || filter.repository_name.is_some() {
            let newest = format!(" AND serial > (SELECT coalesce(max(serial), 0) FROM runs) - {SEARCHED}");
            conditions.text.push_str(&newest);
        }
        if let Some(previous) = &filter.previous {
            conditions.and("previous = $", previous.into());
        }
        match filter.status.as_slice() {
            [] => {}
            [status] => conditions.and("status = $", Value::Text(status.as_str().to_owned())),
            several => {
                let names: Vec<String> = several.iter().map(|status| format!("'{}'", status.as_str())).collect();
                conditions.text.push_str(&format!(" AND status IN ({})", names.join(", ")));
            }
        }
        if filter.unfinished {
            conditions.text.push_str(" AND status IN ('planning', 'waiting', 'queued', 'running', 'sealing')");
        }
        match &filter.reader {
            Reader::Operator => {}
            Reader::Anyone => conditions.text.push_str(" AND visibility = 'public'"),
            Reader::Key(key) => {
                conditions.and("(visibility = 'public' OR readers LIKE '%' || $", Value::Text(key.clone()));
                conditions.text.push_str(" || '%')");
            }
        }
        conditions
    }

    /// Adds a condition whose text ends with `$`.
    fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.text.push_str(&format!(" AND {condition}{}", self.values.len()));
    }

    fn like(&mut self, place: &str, pattern: String) {
        self.and(&format!("{place} LIKE $"), Value::Text(pattern));
        self.text.push_str(" ESCAPE '!'");
    }

    async fn rows(self, store: &Store, statement: String) -> Result<Vec<Row>, StoreError> {
        self.values.into_iter().fold(query(statement), Query::bind).fetch_all(&store.readers).await
    }
}

/// A text in a pattern of `LIKE`, with `!` as its escape.
fn escaped(text: &str) -> String {
    text.replace('!', "!!").replace('%', "!%").replace('_', "!_")
}

/// The statement of a page, and the values it binds.
fn page_of(columns: &str, filter: &Filter, page: Page) -> (String, Where) {
    let mut conditions = Where::new(filter);
    if let Some(before) = page.before {
        conditions.and("serial < $", Value::Integer(integer(before)));
    }
    conditions.values.push(Value::Integer(i64::from(page.limit)));
    let limit = conditions.values.len();
    let statement =
        format!("SELECT {columns} FROM runs WHERE 1 = 1{} ORDER BY serial DESC LIMIT ${limit}", conditions.text);
    (statement, conditions)
}

impl Store {
    /// A page of runs, newest first.
    pub async fn list(&self, filter: &Filter, page: Page) -> Result<Vec<Summary>, StoreError> {
        let (statement, conditions) = page_of(LISTED, filter, page);
        conditions.rows(self, statement).await?.iter().map(summary).collect()
    }

    /// Runs written after the change with this number, the oldest change first.
    pub async fn changed(&self, filter: &Filter, after: u64, limit: u32) -> Result<Vec<Summary>, StoreError> {
        let mut conditions = Where::new(filter);
        conditions.and("changed > $", Value::Integer(integer(after)));
        conditions.values.push(Value::Integer(i64::from(limit)));
        let limit = conditions.values.len();
        let statement =
            format!("SELECT {LISTED} FROM runs WHERE 1 = 1{} ORDER BY changed LIMIT ${limit}", conditions.text);
        conditions.rows(self, statement).await?.iter().map(summary).collect()
    }

    /// Number of the latest change of any run.
    pub async fn latest_change(&self) -> Result<u64, StoreError> {
        let latest: i64 = query_scalar("SELECT coalesce(max(changed), 0) FROM runs").fetch_one(&self.readers).await?;
        Ok(latest.unsigned_abs())
    }

    /// Addresses of repositories that have runs, in order, from behind `after` on.
    pub async fn repositories(&self, after: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let mut found: Vec<String> = Vec::new();
        // One step in the index for each repository, however many runs it has.
        while found.len() < limit {
            let last = found.last().map_or(after, String::as_str);
            let next: Option<String> = query_scalar("SELECT min(repository) FROM runs WHERE repository > $1")
                .bind(last)
                .fetch_one(&self.readers)
                .await?;
            match next {
                Some(next) => found.push(next),
                None => break,
            }
        }
        Ok(found)
    }

    /// How the database would go about a page.
    #[cfg(test)]
    pub(super) async fn explain(&self, filter: &Filter, page: Page) -> Result<String, StoreError> {
        let (statement, conditions) = page_of(LISTED, filter, page);
        let rows = conditions.rows(self, format!("EXPLAIN QUERY PLAN {statement}")).await?;
        let steps: Result<Vec<String>, _> = rows.iter().map(|row| row.get(3)).collect();
        Ok(steps?.join("; "))
    }
}

/// Reads the columns of [`LISTED`].
fn summary(row: &Row) -> Result<Summary, StoreError> {
    let name = row.get::<Option<String>>(15)?.unwrap_or_default();
    let wait = match row.get::<Option<String>>(14)?.as_deref() {
        Some("concurrency") => Some(WaitCondition::Concurrency { group: name, holder: row.get(17)? }),
        Some("approval") => Some(WaitCondition::Approval { environment: name, approvers: Vec::new() }),
        Some("files") => Some(WaitCondition::Files { why: name }),
        Some("timer") => Some(WaitCondition::Timer { until: row.get::<Option<u64>>(16)?.unwrap_or_default() }),
        _ => None,
    };
    Ok(Summary {
        id: row.get(0)?,
        serial: natural(row, 1)?,
        number: natural(row, 2)?,
        attempt: row.get(3)?,
        previous: row.get(4)?,
        repository: row.get(5)?,
        workflow: row.get(6)?,
        name: row.get(7)?,
        commit: row.get(8)?,
        branch: row.get(9)?,
        event: row.get(10)?,
        actor: row.get(11)?,
        phase: named(row, 12)?,
        status: named(row, 13)?,
        wait,
        conclusion: row.get(18)?,
        created_at: natural(row, 19)?,
        started_at: row.get(20)?,
        ended_at: row.get(21)?,
        changed: natural(row, 22)?,
        title: row.get(23)?,
        failed: row.get(24)?,
        queued: row.get::<Option<String>>(25)?,
    })
}

/// Reads a column that holds the name of an enum's variant.
fn named<T: FromStr>(row: &Row, column: usize) -> Result<T, StoreError> {
    let name: String = row.get(column)?;
    name.parse().map_err(|_| StoreError::Database(format!("a stored run has the unknown status `{name}`")))
}

/// Writes a new run, or a new version of one.
pub(super) async fn write(connection: &mut Connection, change: &RunChange) -> Result<(), StoreError> {
    let state = &*change.after;
    let mut before = change.before.as_deref();
    let keeps_its_place = before.is_some_and(|before| place(before) == place(state));
    if state.version == 0 {
        let inserted = insert(state)?.execute(&mut *connection).await?;
        fenced(inserted, "run", state.id.as_str())?;
    } else if keeps_its_place && advance(state)?.execute(&mut *connection).await? > 0 {
        // Most events change where a run stands, and nothing that lists are ordered by.
    } else if update(state, run_parts::STATE_VERSION)?.execute(&mut *connection).await? == 0 {
        // A row of an older form has no parts yet, so all of them are written.
        run_parts::move_reports(connection, &state.id).await?;
        let updated = update(state, run_parts::STATE_VERSION - 1)?.execute(&mut *connection).await?;
        fenced(updated, "run", state.id.as_str())?;
        before = None;
    }
    run_parts::write(connection, before, state).await
}

fn insert(state: &RunState) -> Result<Query, StoreError> {
    let origin = state.request.origin.nostr();
    let run_event = origin.and_then(|origin| origin.run.as_ref()).map(|event| &event.id);
    let job_event = origin.map(|origin| &origin.request.id);
    let statement = query(
        "INSERT INTO runs (id, version, phase, wait_kind, wait_name, wait_until, conclusion, visibility, readers,
             expires_at, name, commit_id, branch, event, status, started_at, ended_at, state, wait_holder,
             state_version, title, failed, changed, serial, number, attempt, previous, request, run_event, job_event,
             publisher, repository, workflow, actor, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             (SELECT coalesce(max(changed), 0) + 1 FROM runs), $23, $24, $25, $26, $27, $28, $29, $30, $31, $32,
             $33, $34)
         ON CONFLICT (id) DO NOTHING",
    );
    Ok(statement
        .bind_all(state)?
        .bind(integer(state.serial))
        .bind(integer(state.number))
        .bind(i64::from(state.attempt))
        .bind(state.rerun.as_ref().map(|rerun| &rerun.previous))
        .bind(&state.request.id)
        .bind(run_event)
        .bind(job_event)
        .bind(origin.and_then(|origin| origin.publisher.as_ref()))
        .bind(&state.request.repository.address)
        .bind(&state.request.workflow)
        .bind(&state.request.actor)
        .bind(integer(state.created_at)))
}

/// What [`advance`] leaves as it is: an index that is named in an update is written, whether its value changes or not.
fn place(state: &RunState) -> impl PartialEq + '_ {
    let Columns { name, commit, branch, title, event, .. } = Columns::of(state);
    (name, commit, branch, title, event, &state.visibility, state.expires_at, failed(state))
}

/// Replaces the version before, where it differs in what changes all the time alone.
fn advance(state: &RunState) -> Result<Query, StoreError> {
    let statement = query(
        "UPDATE runs SET version = $2, phase = $3, wait_kind = $4, wait_name = $5, wait_until = $6, wait_holder = $7,
             conclusion = $8, status = $9, started_at = $10, ended_at = $11, state = $12,
             changed = (SELECT coalesce(max(changed), 0) + 1 FROM runs)
         WHERE id = $1 AND version = $2 - 1 AND state_version = $13",
    );
    let (wait_kind, wait_name, wait_until, wait_holder) = waiting(state);
    let phase: &str = PhaseName::of(&state.phase).into();
    let columns = Columns::of(state);
    Ok(statement
        .bind(&state.id)
        .bind(integer(state.version))
        .bind(phase)
        .bind(wait_kind)
        .bind(wait_name)
        .bind(wait_until)
        .bind(wait_holder)
        .bind(conclusion(state))
        .bind(columns.status)
        .bind(columns.started_at)
        .bind(columns.ended_at)
        .bind(serde_json::to_string(state)?)
        .bind(run_parts::STATE_VERSION))
}

/// Replaces the version before, where its row has the form `state_version`.
fn update(state: &RunState, state_version: i64) -> Result<Query, StoreError> {
    let statement = query(
        "UPDATE runs SET version = $2, phase = $3, wait_kind = $4, wait_name = $5, wait_until = $6,
             conclusion = $7, visibility = $8, readers = $9, expires_at = $10, name = $11, commit_id = $12,
             branch = $13, event = $14, status = $15, started_at = $16, ended_at = $17, state = $18,
             wait_holder = $19, state_version = $20, title = $21, failed = $22,
             changed = (SELECT coalesce(max(changed), 0) + 1 FROM runs)
         WHERE id = $1 AND version = $2 - 1 AND state_version = $23",
    );
    Ok(statement.bind_all(state)?.bind(state_version))
}

/// Fills the columns of rows that were written before there were such.
pub(super) async fn fill(connection: &mut Connection) -> Result<(), StoreError> {
    let ids: Vec<String> =
        query_scalar("SELECT id FROM runs WHERE status = '' ORDER BY serial").fetch_all(&mut *connection).await?;
    for id in ids {
        let text: String =
            query_scalar("SELECT state FROM runs WHERE id = $1").bind(&id).fetch_one(&mut *connection).await?;
        let state = run_parts::document(&text)?.state;
        let columns = Columns::of(&state);
        query(
            "UPDATE runs SET name = $2, commit_id = $3, branch = $4, event = $5, status = $6, started_at = $7,
                 ended_at = $8 WHERE id = $1",
        )
        .bind(&id)
        .bind(columns.name)
        .bind(columns.commit)
        .bind(columns.branch)
        .bind(columns.event)
        .bind(columns.status)
        .bind(columns.started_at)
        .bind(columns.ended_at)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// What a list shows of a run and changes with it.
struct Columns<'a> {
    name: &'a str,
    commit: &'a str,
    branch: &'a str,
    title: &'a str,
    event: &'a str,
    status: &'static str,
    started_at: Option<i64>,
    ended_at: Option<i64>,
}

impl<'a> Columns<'a> {
    fn of(state: &'a RunState) -> Self {
        let (request, planned) = (&state.request, state.planned.as_ref());
        let ended_at = match &state.phase {
            RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => Some(integer(end.at)),
            RunPhase::Planning | RunPhase::Waiting { .. } | RunPhase::Active => None,
        };
        Self {
            name: planned.map_or(request.workflow.as_str(), |planned| &planned.plan.name),
            commit: planned.map_or(request.commit.as_str(), |planned| planned.commit.as_str()),
            branch: planned.map_or(request.branch.as_str(), |planned| short(&planned.reference)),
            title: planned.and_then(|planned| planned.heading()).unwrap_or_default(),
            event: planned.map_or("", |planned| planned.event.as_str()),
            status: Status::of(state).as_str(),
            started_at: state.started_at.map(integer),
            ended_at,
        }
    }
}

fn conclusion(state: &RunState) -> Option<&'static str> {
    match &state.phase {
        RunPhase::Planning | RunPhase::Waiting { .. } | RunPhase::Active => None,
        RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => Some(end.conclusion.as_str()),
    }
}

/// What failed a run that has failed. Before its end nothing is looked at: each change of a run comes by here.
fn failed(state: &RunState) -> String {
    match &state.phase {
        RunPhase::Finalizing { end } | RunPhase::Done { end, .. } if end.conclusion == Conclusion::Failure => {
            explain_failure(state).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// A ref's short name, without `refs/` for refs that are neither branches nor tags.
fn short(reference: &str) -> &str {
    let name = git_ref::short_name(reference);
    name.strip_prefix("refs/").unwrap_or(name)
}

/// Binding what every write of a run writes.
trait BindAll: Sized {
    fn bind_all(self, state: &RunState) -> Result<Self, StoreError>;
}

impl BindAll for Query {
    fn bind_all(self, state: &RunState) -> Result<Self, StoreError> {
        let (wait_kind, wait_name, wait_until, wait_holder) = waiting(state);
        let phase: &str = PhaseName::of(&state.phase).into();
        let (visibility, readers) = match &state.visibility {
            Visibility::Public => ("public", String::new()),
            Visibility::Readers(keys) => ("readers", keys.join(" ")),
        };
        let columns = Columns::of(state);
        Ok(self
            .bind(&state.id)
            .bind(integer(state.version))
            .bind(phase)
            .bind(wait_kind)
            .bind(wait_name)
            .bind(wait_until)
            .bind(conclusion(state))
            .bind(visibility)
            .bind(readers)
            .bind(integer(state.expires_at))
            .bind(columns.name)
            .bind(columns.commit)
            .bind(columns.branch)
            .bind(columns.event)
            .bind(columns.status)
            .bind(columns.started_at)
            .bind(columns.ended_at)
            .bind(serde_json::to_string(state)?)
            .bind(wait_holder)
            .bind(run_parts::STATE_VERSION)
            .bind(columns.title)
            .bind(failed(state)))
    }
}

type Waiting<'a> = (Option<&'static str>, Option<&'a str>, Option<i64>, Option<i64>);

/// Kind, name, moment and holder of what a run waits for.
fn waiting(state: &RunState) -> Waiting<'_> {
    let on = match &state.phase {
        RunPhase::Planning => return (state.delayed.as_ref().map(|_| "files"), state.delayed.as_deref(), None, None),
        RunPhase::Waiting { on } => Some(on),
        _ => state.held_back(),
    };
    let Some(on) = on else { return (None, None, None, None) };
    match on {
        WaitCondition::Concurrency { group, holder } => (Some("concurrency"), Some(group), None, holder.map(integer)),
        WaitCondition::Approval { environment, .. } => (Some("approval"), Some(environment), None, None),
        WaitCondition::Files { why } => (Some("files"), Some(why), None, None),
        WaitCondition::Timer { until } => (Some("timer"), None, Some(integer(*until)), None),
    }
}
