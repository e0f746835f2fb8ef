//! A job's own keys, evaluated. The contexts each may use are those of GitHub docs, "Contexts".

use crate::expression::{self, ExpressionError, ExpressionErrorKind, Scope, Value};
use crate::plan::{Concurrency, ConcurrencyRequest, Job, QueueMode, Tree};

/// `timeout-minutes` where a job has none (GitHub docs: `jobs.<job_id>.timeout-minutes`).
const DEFAULT_TIMEOUT_MINUTES: f64 = 360.0;

/// Whether a job's `if:` lets it run; without one, whether `success()` holds.
///
/// # Errors
/// A wrong condition, or [`ExpressionErrorKind::Pending`].
pub(super) fn decide(job: &Job, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    let condition = job.condition.as_deref().unwrap_or("success()");
    expression::condition(condition, scope).map_err(|error| at("if", &error))
}

/// Whether the run goes on as if the job had succeeded.
///
/// # Errors
/// A wrong expression, or a value that is no boolean.
pub(super) fn continue_on_error(job: &Job, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    boolean("continue-on-error", job.continue_on_error.as_ref(), false, scope)
}

/// Whether the first matrix cell that fails cancels the others.
///
/// # Errors
/// A wrong expression, or a value that is no boolean.
pub(super) fn fail_fast(job: &Job, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    boolean("fail-fast", job.strategy.fail_fast.as_ref(), true, scope)
}

/// How many matrix cells may run at once; `None` is any number.
///
/// # Errors
/// A wrong expression, or a value that is no number.
pub(super) fn max_parallel(job: &Job, scope: &Scope<'_>) -> Result<Option<usize>, ExpressionError> {
    let Some(tree) = &job.strategy.max_parallel else {
        return Ok(None);
    };
    let number = number("max-parallel", tree, scope)?;
    // A float cast saturates, and no job has more cells than a usize holds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let cells = number as usize;
    Ok((cells > 0).then_some(cells))
}

/// How long one attempt may take, in minutes.
///
/// # Errors
/// A wrong expression, or a value that is no number above zero.
pub(super) fn timeout_minutes(job: &Job, scope: &Scope<'_>) -> Result<f64, ExpressionError> {
    let Some(tree) = &job.timeout_minutes else {
        return Ok(DEFAULT_TIMEOUT_MINUTES);
    };
    let minutes = number("timeout-minutes", tree, scope)?;
    if minutes > 0.0 { Ok(minutes) } else { Err(wrong("timeout-minutes", "takes a number above zero")) }
}

/// A concurrency group as a run or job asks for it.
///
/// # Errors
/// A wrong expression, an empty name, a `cancel-in-progress` that is no boolean, or one that contradicts `queue: max`.
pub(super) fn concurrency(concurrency: &Concurrency, scope: &Scope<'_>) -> Result<ConcurrencyRequest, ExpressionError> {
    let group =
        expression::interpolate_text(&concurrency.group, scope).map_err(|error| at("concurrency.group", &error))?;
    if group.is_empty() {
        return Err(wrong("concurrency.group", "is empty: name a group, or leave `concurrency` out"));
    }
    let cancel_in_progress = boolean("cancel-in-progress", Some(&concurrency.cancel_in_progress), false, scope)?;
    if cancel_in_progress && concurrency.queue == QueueMode::Max {
        return Err(wrong("queue", "can't be `max` where `cancel-in-progress` is true: leave one of them out"));
    }
    Ok(ConcurrencyRequest { group, cancel_in_progress, queue: concurrency.queue })
}

/// Name of the environment that the job deploys to; `None`: none, or an empty one.
///
/// # Errors
/// A wrong expression.
pub(super) fn environment(job: &Job, scope: &Scope<'_>) -> Result<Option<String>, ExpressionError> {
    let name = match &job.environment {
        Some(Tree::Object(keys)) => keys.get("name").and_then(Tree::as_str),
        Some(tree) => tree.as_str(),
        None => None,
    };
    let name = expression::interpolate_text(name.unwrap_or_default(), scope);
    Ok(Some(name.map_err(|error| at("environment", &error))?).filter(|name| !name.is_empty()))
}

fn boolean(key: &str, tree: Option<&Tree>, default: bool, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
    let Some(tree) = tree else { return Ok(default) };
    match expression::interpolate_tree(tree, scope).map_err(|error| at(key, &error))? {
        Value::Bool(truth) => Ok(truth),
        // A missing context property, such as a matrix key only some cells have.
        Value::Null => Ok(false),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(wrong(key, &format!("takes `true` or `false`, not {}", other.kind_name()))),
    }
}

fn number(key: &str, tree: &Tree, scope: &Scope<'_>) -> Result<f64, ExpressionError> {
    let value = expression::interpolate_tree(tree, scope).map_err(|error| at(key, &error))?;
    let number = match &value {
        Value::Number(_) | Value::String(_) => value.to_number(),
        _ => f64::NAN,
    };
    if number.is_nan() { Err(wrong(key, &format!("takes a number, not {}", value.kind_name()))) } else { Ok(number) }
}

fn at(key: &str, error: &ExpressionError) -> ExpressionError {
    ExpressionError { kind: error.kind, message: format!("`{key}`: {}", error.message), position: error.position }
}

fn wrong(key: &str, what: &str) -> ExpressionError {
    ExpressionError { kind: ExpressionErrorKind::Evaluation, message: format!("`{key}` {what}"), position: 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::tests::{job_of, with_contexts};
    use super::*;
    use crate::expression::{EvaluationLimits, HostFunctionError, HostFunctions, Object};

    struct Succeeded(bool);

    impl HostFunctions for Succeeded {
        fn call(&self, name: &str, _: &[Value]) -> Option<Result<Value, HostFunctionError>> {
            match name {
                "success" => Some(Ok(Value::Bool(self.0))),
                "failure" => Some(Ok(Value::Bool(!self.0))),
                "always" => Some(Ok(Value::Bool(true))),
                _ => None,
            }
        }
    }

    #[test]
    fn a_job_runs_where_its_needs_succeeded_unless_its_condition_asks_otherwise() {
        for (keys, after_success, after_failure) in [
            ("", true, false),
            ("if: true", true, false),
            ("if: failure()", false, true),
            ("if: always()", true, true),
            ("if: ${{ false }}", false, false),
        ] {
            let job = job_of(&format!("runs-on: x\n{keys}"));
            for (succeeded, expected) in [(true, after_success), (false, after_failure)] {
                let functions = Succeeded(succeeded);
                let contexts = Object::new();
                let scope = Scope { contexts: &contexts, functions: &functions, limits: EvaluationLimits::default() };
                assert_eq!(decide(&job, &scope).unwrap(), expected, "{keys} after {succeeded}");
            }
        }
    }

    #[test]
    fn keys_have_defaults_values_and_expressions() {
        let contexts = json!({"matrix": {"flag": true, "minutes": 7, "text": "x"}});
        let asked = |keys: &str| {
            let job = job_of(&format!("runs-on: x\n{keys}"));
            with_contexts(&contexts, |scope| {
                (
                    timeout_minutes(&job, scope),
                    continue_on_error(&job, scope),
                    fail_fast(&job, scope),
                    max_parallel(&job, scope),
                )
            })
        };
        assert_eq!(asked(""), (Ok(360.0), Ok(false), Ok(true), Ok(None)));
        let keys = "timeout-minutes: 0.5\ncontinue-on-error: true\nstrategy: {fail-fast: false, max-parallel: 2}";
        assert_eq!(asked(keys), (Ok(0.5), Ok(true), Ok(false), Ok(Some(2))));
        let keys = "timeout-minutes: ${{ matrix.minutes }}\ncontinue-on-error: ${{ matrix.flag }}";
        assert_eq!(asked(keys), (Ok(7.0), Ok(true), Ok(true), Ok(None)));
        let keys = "timeout-minutes: 1e999\nstrategy: {max-parallel: .inf}";
        assert_eq!(asked(keys), (Ok(f64::INFINITY), Ok(false), Ok(true), Ok(Some(usize::MAX))));
        let wrong = asked("timeout-minutes: ${{ matrix.text }}\ncontinue-on-error: ${{ matrix.text }}");
        assert_eq!(wrong.0.unwrap_err().message, "`timeout-minutes` takes a number, not String");
        assert_eq!(wrong.1.unwrap_err().message, "`continue-on-error` takes `true` or `false`, not String");
        assert!(asked("timeout-minutes: ${{ matrix.none }}").0.is_err());
    }

    #[test]
    fn an_environment_is_named_alone_or_beside_its_address() {
        let contexts = json!({"matrix": {"stage": "prod"}});
        for (keys, expected) in [
            ("", None),
            ("environment: staging", Some("staging")),
            ("environment: '${{ matrix.stage }}-eu'", Some("prod-eu")),
            ("environment: {name: '${{ matrix.stage }}', url: 'https://${{ steps.x.outputs.host }}'}", Some("prod")),
            ("environment: '${{ matrix.none }}'", None),
        ] {
            let job = job_of(&format!("runs-on: x\n{keys}"));
            let named = with_contexts(&contexts, |scope| environment(&job, scope)).unwrap();
            assert_eq!(named.as_deref(), expected, "{keys}");
        }
    }

    #[test]
    fn a_group_is_named_by_an_expression() {
        let job = job_of("runs-on: x\nconcurrency: {group: 'g-${{ matrix.v }}', cancel-in-progress: true}");
        let asked = with_contexts(&json!({"matrix": {"v": 2}}), |scope| {
            concurrency(job.concurrency.as_ref().unwrap(), scope).unwrap()
        });
        let expected = ConcurrencyRequest { group: "g-2".into(), cancel_in_progress: true, queue: QueueMode::Single };
        assert_eq!(asked, expected);
    }

    #[test]
    fn a_queue_of_many_and_cancelling_exclude_each_other_also_where_an_expression_says_so() {
        let keys = "runs-on: x\nconcurrency: {group: g, queue: max, cancel-in-progress: '${{ matrix.v == 2 }}'}";
        let job = job_of(keys);
        let asked = |v: u32| {
            with_contexts(&json!({"matrix": {"v": v}}), |scope| concurrency(job.concurrency.as_ref().unwrap(), scope))
        };
        assert_eq!(asked(1).unwrap().queue, QueueMode::Max);
        assert!(asked(2).unwrap_err().message.contains("can't be `max`"));
    }
}
