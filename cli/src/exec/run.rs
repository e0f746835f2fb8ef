//! One run in this process: the pure state machine, with a sandbox in the place of workers.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use indexmap::IndexMap;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use ::coordinator::{
    log::text::Writer,
    run::{
        self, Effect, Event, Millis, New, Origin, Phase, Planned, Repository, Request, Rules, SealedLog, State,
        Visibility,
    },
};
use ::worker::{
    config::JobLimits,
    fetch::LocalRepository,
    job::{self, Observer},
    log::{Record, spool::Each},
    sandbox::Sandbox,
};

/// Characters of the time before each line of a [`Writer`].
const TIME: usize = "1970-01-01T00:00:00.000Z ".len();

/// What is run, and how.
pub(super) struct Settings {
    pub(super) planned: Planned,
    pub(super) vars: IndexMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretString>,
    pub(super) images: BTreeMap<String, String>,
    pub(super) parallel: usize,
    pub(super) repository: PathBuf,
    /// Whether output is shown as it comes.
    pub(super) live: bool,
    pub(super) cancel: CancellationToken,
    pub(super) kill: CancellationToken,
}

/// What jobs printed, by key.
pub(super) type Logs = BTreeMap<String, String>;

struct Loop {
    state: State,
    settings: Settings,
    sandbox: Arc<dyn Sandbox>,
    events: mpsc::UnboundedSender<Event>,
    /// Jobs that wait for a free place, with their labels.
    waiting: VecDeque<(String, Vec<String>)>,
    running: HashMap<String, CancellationToken>,
    logs: Arc<Mutex<Logs>>,
}

/// Runs all jobs; returns the run when it has ended.
pub(super) async fn to_the_end(settings: Settings, sandbox: Arc<dyn Sandbox>) -> anyhow::Result<(State, Logs)> {
    let (events, mut heard) = mpsc::unbounded_channel();
    let now = now();
    let new = New {
        id: uuid::Uuid::now_v7().to_string(),
        serial: 1,
        number: 1,
        attempt: 1,
        previous: None,
        request: request(&settings, now),
        secrets: !settings.secrets.is_empty(),
        rules: Rules::default(),
        visibility: Visibility::Public,
        expires_at: now,
    };
    let planned = settings.planned.clone();
    let cancel = settings.cancel.clone();
    let (state, _) = run::create(new, now);
    let logs = Arc::default();
    let mut this = Loop { state, settings, sandbox, events, waiting: VecDeque::new(), running: HashMap::new(), logs };
    this.tell(Event::Planned(Box::new(planned)));
    let mut asked = false;
    while !matches!(this.state.phase, Phase::Done { .. }) {
        tokio::select! {
            event = heard.recv() => this.tell(event.context("every job ended without a word")?),
            () = cancel.cancelled(), if !asked => {
                asked = true;
                this.tell(Event::Cancel { by: "you".into() });
            }
        }
    }
    let logs = std::mem::take(&mut *this.logs.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((this.state, logs))
}

fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as Millis)
}

fn request(settings: &Settings, now: Millis) -> Request {
    Request {
        id: String::new(),
        origin: Origin::Api,
        repository: Repository { address: settings.repository.display().to_string(), ..Repository::default() },
        workflow: settings.planned.plan.path.clone(),
        commit: settings.planned.commit.clone(),
        branch: String::new(),
        reference: Some(settings.planned.reference.clone()),
        trigger: None,
        actor: String::new(),
        env: settings.vars.clone(),
        notices: Vec::new(),
        inputs: None,
        received_at: now,
    }
}

impl Loop {
    /// An event, and whatever follows from it at once.
    fn tell(&mut self, event: Event) {
        let mut next = VecDeque::from([event]);
        while let Some(event) = next.pop_front() {
            // What changes nothing is late or double: a job that ended while it was being stopped.
            let Ok((state, effects)) = run::advance(&self.state, event, now()) else { continue };
            self.state = state;
            for effect in effects {
                match effect {
                    Effect::Queue { job, labels, .. } => match self.image(&labels) {
                        Some(_) => self.waiting.push_back((job, labels)),
                        None => {
                            eprintln!("{job} | no image for {}: give one with --image LABEL=IMAGE", labels.join(", "));
                            next.push_back(Event::Unmatched { job });
                        }
                    },
                    Effect::Unqueue { job, .. } => self.waiting.retain(|(waiting, _)| *waiting != job),
                    Effect::Stop { job, .. } => {
                        if let Some(cancel) = self.running.get(&job) {
                            cancel.cancel();
                        }
                    }
                    Effect::Seal => next.push_back(Event::Sealed { log: SealedLog::default() }),
                    Effect::Plan | Effect::Timer { .. } | Effect::Publish(_) | Effect::EraseSecrets => {}
                }
            }
            self.running.retain(|key, _| self.state.jobs.get(key).is_some_and(|job| job.conclusion().is_none()));
            self.start_accepted();
            if next.is_empty()
                && self.running.len() < self.settings.parallel
                && let Some((job, _)) = self.waiting.front()
            {
                next.push_back(Event::Accepted { job: job.clone(), worker: "this machine".into() });
            }
        }
    }

    fn image(&self, labels: &[String]) -> Option<&String> {
        labels.iter().find_map(|label| self.settings.images.get(label))
    }

    /// Starts jobs whose attempt began and that no task runs yet.
    fn start_accepted(&mut self) {
        let begun: Vec<String> = self
            .state
            .jobs
            .iter()
            .filter(|(key, job)| matches!(job.phase, run::JobPhase::Running { .. }) && !self.running.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in begun {
            self.start(&key);
        }
    }

    fn start(&mut self, key: &str) {
        let Some(order) = run::order(&self.state, key) else { return };
        let cancel = CancellationToken::new();
        self.running.insert(key.to_owned(), cancel.clone());
        let (name, attempt_number) = (order.name.clone(), order.attempt);
        let attempt = job::Attempt {
            image: self.image(&order.runs_on).cloned().unwrap_or_default(),
            order,
            secrets: self.settings.secrets.clone(),
            masks: Vec::new(),
            limits: JobLimits::default(),
            // The sandbox brings the tree: with changes that are not committed.
            checked_out: false,
            cancel,
            kill: self.settings.kill.clone(),
        };
        let screen = Screen { key: key.to_owned(), name, live: self.settings.live, logs: self.logs.clone() };
        let writer = Mutex::new(Writer::default());
        let show = move |record: Record| {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let ends = record.mark.as_ref().is_some_and(|mark| mark.ended);
            let rest = if ends { writer.finish() } else { String::new() };
            screen.show(&rest);
            screen.show(&writer.write(&[record]));
        };
        let told = Arc::new(Told { key: key.to_owned(), attempt: attempt_number, events: self.events.clone() });
        let sources = Arc::new(LocalRepository::new(self.settings.repository.clone()));
        let work = job::execute(attempt, self.sandbox.clone(), sources, Arc::new(Each::new(show)), told.clone());
        tokio::spawn(async move {
            let event = match tokio::spawn(Box::pin(work)).await {
                Ok(report) => {
                    Event::Finished { job: told.key.clone(), attempt: told.attempt, report: Box::new(report) }
                }
                Err(error) => {
                    Event::Lost { job: told.key.clone(), attempt: told.attempt, reason: error.to_string() }
                }
            };
            told.say(event);
        });
    }
}

/// Shows and keeps what a job prints.
struct Screen {
    key: String,
    name: String,
    live: bool,
    logs: Arc<Mutex<Logs>>,
}

impl Screen {
    fn show(&self, text: &str) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let log = logs.entry(self.key.clone()).or_default();
        for line in text.lines() {
            let line = line.get(TIME..).unwrap_or_default();
            if self.live {
                println!("{} | {line}", self.name);
            }
            log.push_str(line);
            log.push('\n');
        }
    }
}

struct Told {
    key: String,
    attempt: u32,
    events: mpsc::UnboundedSender<Event>,
}

impl Told {
    fn say(&self, event: Event) {
        // The loop ends only after the run has: then nobody needs to hear more.
        let _ = self.events.send(event);
    }
}

impl Observer for Told {
    fn begun(&self, _image_digest: Option<String>) {
        self.say(Event::Begun { job: self.key.clone(), attempt: self.attempt });
    }

    fn step(&self, _index: u32, _name: &str, _state: &str, _outcome: &str) {}
}
