//! Evaluates what stands in `${{ }}` of a step, with the contexts and functions it has there.

use std::{collections::HashMap, time::Duration};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use workflow::{
    expression::{
        self, EvaluationLimits, ExpressionError, ExpressionErrorKind, HostFunctionError, HostFunctions, Object, Scope,
        Value,
    },
    plan::{Env, EnvSource, Tree},
};

use super::deadline::Deadline;
use crate::{dialect::step_contexts::JobStatus, sandbox::Machine};

/// Contexts and functions for one step.
pub(super) struct Evaluator<'a> {
    /// Contexts by name.
    pub(super) contexts: Object,
    /// What the status functions say.
    pub(super) status: JobStatus,
    /// Where `hashFiles` looks; `None`: there is no machine yet.
    pub(super) machine: Option<&'a dyn Machine>,
    /// What ends the job, and the step's own time: nobody waits longer for a hash.
    pub(super) ends: Option<(Deadline, Option<Instant>)>,
}

/// How long one hash may take, as on GitHub: a file with holes may be of any size.
const HASHING: Duration = Duration::from_secs(120);

impl Evaluator<'_> {
    /// Text with expressions.
    pub(super) async fn text(&self, text: &str) -> Result<String, String> {
        if !text.contains("${{") {
            return Ok(text.to_owned());
        }
        self.settle(|scope| expression::interpolate_text(text, scope)).await.map_err(|error| shown(text, &error))
    }

    /// An `if:`; a missing one is `success()`.
    pub(super) async fn condition(&self, condition: Option<&str>) -> Result<bool, String> {
        let text = condition.unwrap_or("success()");
        self.settle(|scope| expression::condition(text, scope)).await.map_err(|error| shown(text, &error))
    }

    /// A YAML value with expressions in it.
    pub(super) async fn tree(&self, tree: &Tree) -> Result<Value, String> {
        self.settle(|scope| expression::interpolate_tree(tree, scope))
            .await
            .map_err(|error| shown(&tree.to_string(), &error))
    }

    /// A boolean, or an expression that yields one; `name` stands in the message.
    pub(super) async fn truth(&self, name: &str, tree: Option<&Tree>) -> Result<bool, String> {
        match tree {
            None => Ok(false),
            Some(tree) => match self.tree(tree).await? {
                Value::Bool(truth) => Ok(truth),
                Value::Null => Ok(false),
                Value::String(text) if text.is_empty() || &*text == "false" => Ok(false),
                Value::String(text) if &*text == "true" => Ok(true),
                other => Err(format!("{name} must be true or false, not {other}")),
            },
        }
    }

    /// A number of minutes as milliseconds.
    pub(super) async fn minutes(&self, name: &str, tree: Option<&Tree>) -> Result<Option<u64>, String> {
        let Some(tree) = tree else { return Ok(None) };
        let value = self.tree(tree).await?;
        let minutes = value.to_number();
        if matches!(value, Value::Null) || minutes == 0.0 {
            return Ok(None);
        }
        // More than a year is no limit; the range makes the conversion exact enough.
        if minutes.is_nan() || minutes < 0.0 {
            return Err(format!("{name} must be a number of minutes above 0, not {value}"));
        }
        Ok(Some(std::time::Duration::from_secs_f64(minutes.min(525_600.0) * 60.0).as_millis() as u64))
    }

    /// An `env:` mapping.
    pub(super) async fn env(&self, source: &EnvSource) -> Result<IndexMap<String, String>, String> {
        match source {
            EnvSource::Map(map) => self.texts("env", map).await,
            EnvSource::Expression(text) => self.mapping("env", &Tree::String(text.clone())).await,
        }
    }

    /// Names and their texts, in both of which expressions may stand; `what` they are stands in the message.
    pub(super) async fn texts(&self, what: &str, map: &Env) -> Result<IndexMap<String, String>, String> {
        if map.keys().any(|name| name.contains("${{")) {
            let tree = map.iter().map(|(name, text)| (name.clone(), Tree::String(text.clone()))).collect();
            return self.mapping(what, &Tree::Object(tree)).await;
        }
        let mut texts = IndexMap::new();
        for (name, text) in map {
            texts.insert(name.clone(), self.text(text).await.map_err(|error| format!("{what} {name}: {error}"))?);
        }
        Ok(texts)
    }

    async fn mapping(&self, what: &str, tree: &Tree) -> Result<IndexMap<String, String>, String> {
        match self.tree(tree).await? {
            Value::Object(object) => {
                Ok(object.iter().map(|(name, value)| (name.to_owned(), value.as_text().into_owned())).collect())
            }
            Value::Null => Ok(IndexMap::new()),
            other => Err(format!("{what} must yield a mapping, not {}", other.kind_name())),
        }
    }

    async fn hash(&self, machine: &dyn Machine, patterns: &[String]) -> Result<Option<String>, String> {
        let ended = async {
            match &self.ends {
                Some((deadline, step)) => drop(deadline.interrupt(*step).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            hash = tokio::time::timeout(HASHING, machine.hash_files(patterns)) => match hash {
                Ok(hash) => hash.map_err(|error| error.to_string()),
                Err(_) => Err(format!("it took more than {} seconds", HASHING.as_secs())),
            },
            () = ended => Err("the time for it was over".to_owned()),
        }
    }

    /// Evaluates, and again after each hash the machine had to work out.
    async fn settle<T>(
        &self,
        evaluate: impl Fn(&Scope<'_>) -> Result<T, ExpressionError>,
    ) -> Result<T, ExpressionError> {
        let host = Host { status: self.status, hashes: Mutex::default() };
        loop {
            let result = {
                let scope = Scope { contexts: &self.contexts, functions: &host, limits: EvaluationLimits::default() };
                evaluate(&scope)
            };
            match result {
                Err(error) if error.kind == ExpressionErrorKind::Pending => {
                    let Some(patterns) = host.wanted() else {
                        return Err(error);
                    };
                    let hash = match self.machine {
                        Some(machine) => self.hash(machine, &patterns).await,
                        None => Err("there is no workspace yet".to_owned()),
                    };
                    host.lock().insert(patterns, Some(hash.map(Option::unwrap_or_default)));
                }
                result => return result,
            }
        }
    }
}

fn shown(text: &str, error: &ExpressionError) -> String {
    let first = text.lines().next().unwrap_or_default();
    let cut: String = first.chars().take(200).collect();
    format!("the expression in `{cut}` cannot be evaluated: {}", error.message)
}

type Hashes = HashMap<Vec<String>, Option<Result<String, String>>>;

struct Host {
    status: JobStatus,
    /// By patterns; `None`: asked for, not known yet.
    hashes: Mutex<Hashes>,
}

impl Host {
    fn lock(&self) -> parking_lot::MutexGuard<'_, Hashes> {
        self.hashes.lock()
    }

    fn wanted(&self) -> Option<Vec<String>> {
        self.lock().iter().find(|(_, hash)| hash.is_none()).map(|(patterns, _)| patterns.clone())
    }
}

impl HostFunctions for Host {
    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, HostFunctionError>> {
        // `success` and `failure` take job ids in the coordinator's conditions; in steps arguments mean nothing.
        Some(Ok(Value::Bool(match name.to_ascii_lowercase().as_str() {
            "always" => true,
            "success" => self.status == JobStatus::Success,
            "failure" => self.status == JobStatus::Failure,
            "cancelled" => self.status == JobStatus::Cancelled,
            "hashfiles" => {
                let patterns: Vec<_> = args.iter().map(|value| value.as_text().into_owned()).collect();
                if patterns.is_empty() {
                    return Some(Err(HostFunctionError::Failed("hashFiles needs at least one pattern".into())));
                }
                return Some(match self.lock().entry(patterns).or_insert(None) {
                    Some(Ok(hash)) => Ok(Value::from(hash.as_str())),
                    Some(Err(message)) => Err(HostFunctionError::Failed(format!("hashFiles: {message}"))),
                    None => Err(HostFunctionError::Pending),
                });
            }
            _ => return None,
        })))
    }
}
