//! Where workflows' actions and the workflows of others that they call come from, for the commands that run workflows.

use std::path::{Path, PathBuf};

use shipway_worker::forge::forge_login::read_token_file;
use shipway_workflow::job::ActionSource;

use crate::exit::Failure;

/// The options.
#[derive(Clone, Debug, clap::Args)]
pub struct Forge {
    /// Where to fetch actions and reusable workflows from: a URL, or a directory of bare repositories named owner/repo.git
    #[arg(long, env = "SHIPWAY_FORGE", default_value = ActionSource::FORGE, value_name = "URL_OR_PATH")]
    forge: String,
    /// File, readable only by you, with the token of a private forge, or name:token
    #[arg(long, env = "SHIPWAY_FORGE_TOKEN_FILE", value_name = "FILE")]
    forge_token_file: Option<PathBuf>,
}

impl Forge {
    /// The source of actions for workers.
    pub fn source(&self, cache: Option<PathBuf>) -> Result<ActionSource, Failure> {
        let forge = self.forge.trim_end_matches('/');
        if forge.is_empty() {
            return Err(Failure::usage_with(
                "--forge (SHIPWAY_FORGE) is empty",
                "use a URL such as https://github.com, or a directory of bare repositories",
            ));
        }
        let path = Path::new(forge.strip_prefix("file://").unwrap_or(forge));
        let is_address = forge.contains("://") || forge.contains('@');
        let forge = if path.is_dir() {
            let path = path.canonicalize();
            let path = path.map_err(|error| Failure::usage(format!("--forge {forge}: {error}")))?;
            path.display().to_string()
        } else if is_address && !forge.starts_with("file://") {
            forge.to_owned()
        } else {
            return Err(Failure::usage_with(
                format!("--forge {forge}: no such directory"),
                "use a URL such as https://github.com, or a directory of bare repositories",
            ));
        };
        Ok(ActionSource {
            forge,
            token_file: self.token_file()?,
            cache,
            built_in: built_in()?,
            allow_other_versions: false,
        })
    }

    /// The token's file. An unusable token is reported now instead of at its first use.
    fn token_file(&self) -> Result<Option<PathBuf>, Failure> {
        let named = self.forge_token_file.as_deref();
        let Some(file) = named.filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(None);
        };
        read_token_file(file).map_err(|error| Failure::usage(error.to_string()))?;
        let path = file.canonicalize();
        path.map(Some)
            .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
    }
}

fn built_in() -> Result<bool, Failure> {
    match std::env::var("SHIPWAY_BUILTIN_ACTIONS").as_deref() {
        Err(_) | Ok("" | "on") => Ok(true),
        Ok("off") => Ok(false),
        Ok(other) => Err(Failure::usage_with(
            format!("SHIPWAY_BUILTIN_ACTIONS is {other:?}"),
            "use on (the default) or off",
        )),
    }
}

/// `~/.cache/shipway/actions`, as the desktop's rules have it; none without a home.
pub fn user_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|base| !base.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.filter(|base| base.is_absolute())
        .map(|base| base.join("shipway").join("actions"))
}
