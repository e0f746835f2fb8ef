//! `longshore eval`: one GitHub expression, as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use workflow::expression::{self, Limits, NoFunctions, Object, Scope, Value};

/// Evaluate a GitHub expression and print the value as JSON
///
/// The expression may stand with or without ${{ }}. Example:
/// longshore eval "contains(github.ref, 'main')" --context ctx.json
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The expression
    #[arg(allow_hyphen_values = true)]
    expression: String,
    /// JSON file with the contexts by name, e.g. {"github": {"ref": "refs/heads/main"}}
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
}

/// Exit code: 0 with a value, 2 where the expression has none.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let contexts = match &args.context {
        None => serde_json::Map::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("--context {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("--context {}: not a JSON object", path.display()))?
        }
    };
    let contexts: Object = contexts.iter().map(|(name, value)| (name.as_str(), Value::from_json(value))).collect();
    let scope = Scope { contexts: &contexts, functions: &NoFunctions, limits: Limits::default() };
    let text = args.expression.trim();
    let value = match text.contains("${{") {
        true => expression::interpolate(text, &scope),
        false => expression::parse(text).and_then(|expression| expression.evaluate(&scope)),
    };
    match value {
        Ok(value) => {
            println!("{}", value.to_json());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("error: {error}\n  {text}\n  {}^", " ".repeat(text.get(..error.position).unwrap_or(text).chars().count()));
            Ok(ExitCode::from(2))
        }
    }
}
