//! `shipway eval`: a workflow expression, evaluated here.

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;
use shipway_workflow::expr::{Contexts, Expr, ExprValue, StatusChecks};

use crate::{
    exit::Failure,
    print::{Output, line},
};

/// Evaluate a workflow expression, without its ${{ }}
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The expression; it may begin with `-`
    #[arg(allow_hyphen_values = true)]
    expression: String,
    /// JSON file with the contexts: {"github": {…}, "env": {…}}
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
}

/// Evaluates it; exit code 1 when it can't be.
pub fn run(args: &Args, output: Output) -> Result<ExitCode, Failure> {
    let mut contexts = Contexts::new().with_status(StatusChecks {
        success: true,
        failure: false,
        cancelled: false,
    });
    if let Some(path) = &args.context {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        for (name, value) in &document {
            contexts.set(name, ExprValue::from(value));
        }
    }
    let result = Expr::parse(&args.expression, 0)
        .map_err(|error| error.to_string())
        .and_then(|expr| expr.eval(&contexts).map_err(|error| error.to_string()));
    match result {
        Ok(value) if output.json => output
            .document(&json!({ "kind": value.kind(), "value": value }))
            .map(|()| ExitCode::SUCCESS),
        Ok(value) => {
            line(&if value.is_primitive() {
                value.to_text().to_string()
            } else {
                value.to_json()
            });
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if output.json => output
            .document(&json!({ "error": error }))
            .map(|()| ExitCode::from(1)),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", args.expression))),
    }
}
