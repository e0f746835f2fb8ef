//! `longshore eval`: one expression, evaluated.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use workflow::expression::{self, EvaluationLimits, NoHostFunctions, Object, Scope, Value};

/// Evaluate one GitHub expression and print its value as JSON
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The expression, with or without ${{ }}
    #[arg(value_name = "EXPR")]
    expression: String,
    /// JSON file with an object of contexts: {"github": {…}, "env": {…}}
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
}

#[allow(clippy::print_stdout)]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let contexts = match &args.context {
        Some(path) => read(path)?,
        None => Object::new(),
    };
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    let text = args.expression.trim();
    // Of a function that nobody asks for the name is wrong all the same.
    let names: Vec<&str> = contexts.iter().map(|(name, _)| name).collect();
    let known = match text.contains("${{") {
        true => expression::check(text, &names, &[]),
        false => expression::parse_known(text, &names, &[]).map(drop),
    };
    let unknown_function = known.err().filter(|error| error.message.starts_with("Unrecognized function"));
    let value = if let Some(error) = unknown_function {
        Err(error)
    } else if text.contains("${{") {
        expression::interpolate(text, &scope)
    } else {
        expression::parse(text).and_then(|parsed| parsed.evaluate(&scope))
    };
    match value {
        Ok(value) => println!("{}", serde_json::to_string_pretty(&value.to_json()).context("no JSON form")?),
        Err(error) => {
            let unknown = args.context.is_none() && error.message.starts_with("Unrecognized named-value");
            let hint = if unknown { "\ncontexts are given in a JSON file: --context FILE" } else { "" };
            bail!("{}\n  {text}\n  {}^{hint}", error.message, " ".repeat(error.position.min(text.len())))
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &PathBuf) -> Result<Object> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))?;
    match Value::from_json(&json) {
        Value::Object(contexts) => Ok(contexts.as_ref().clone()),
        other => bail!("{}: expected an object of contexts, found {}", path.display(), other.kind_name()),
    }
}
