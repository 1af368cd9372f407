//! `actions/cache`, `actions/cache/restore` and `actions/cache/save`.
//!
//! Outputs are exactly GitHub's: `cache-hit` is `true` for an exact match of the key, `false` for a match of a
//! restore key, and unset if nothing was found.

use super::{
    action_error::ActionError, blocking_task::run_blocking, step_context::StepContext,
    step_context::StepResult,
};
use crate::{
    action_stage::ActionStage,
    cache::{CacheEntry, JobCaches, SaveCacheError, cache_archive, check_key},
    path_patterns::SearchRoots,
};

/// State that the main part of `actions/cache` saves for its post part.
const PRIMARY_KEY: &str = "CACHE_KEY";
const MATCHED_KEY: &str = "CACHE_RESULT";

/// The inputs of a step.
struct CacheInputs {
    paths: String,
    key: String,
    restore_keys: Vec<String>,
}

impl CacheInputs {
    fn from_inputs(context: &StepContext<'_>) -> Result<Self, ActionError> {
        let given = |name: &str| {
            let value = context.input(name);
            value.ok_or_else(|| ActionError::MissingInput {
                action: "actions/cache",
                input: name.to_owned(),
            })
        };
        let lines = context.input("restore-keys").unwrap_or_default().lines();
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        Ok(Self {
            paths: given("path")?.to_owned(),
            key: check_key(given("key")?)?.to_owned(),
            restore_keys: lines.map(str::to_owned).collect(),
        })
    }
}

/// `actions/cache`: the main part restores, the post part saves.
pub(super) async fn run_cache(context: &mut StepContext<'_>) -> Result<StepResult, ActionError> {
    if context.stage == ActionStage::Post {
        save_cache(context).await?;
        return Ok(StepResult::default());
    }
    let mut left = restore_cache(context).await?;
    left.has_post_part = true;
    Ok(left)
}

/// `actions/cache/restore`
pub(super) async fn restore_cache(
    context: &mut StepContext<'_>,
) -> Result<StepResult, ActionError> {
    let asked = CacheInputs::from_inputs(context)?;
    let mode = match context.bool_input("lookup-only")? {
        true => RestoreMode::LookupOnly,
        false => RestoreMode::Unpack,
    };
    let must_hit = context.bool_input("fail-on-cache-miss")?;
    let primary = ("cache-primary-key", asked.key.clone());
    let Some(caches) = context.caches.cloned() else {
        context.notice("this run has no cache storage; nothing is restored or saved");
        return Ok(StepResult::with_outputs([
            primary,
            ("cache-hit", "false".to_owned()),
        ]));
    };
    let state = (PRIMARY_KEY.to_owned(), asked.key.clone());
    let (roots, key) = (cache_roots(context), asked.key.clone());
    let keys = std::iter::once(&key).chain(&asked.restore_keys);
    let keys = keys.cloned().collect::<Vec<_>>().join(", ");
    let scratch = context.folders.temp.clone();
    let found =
        run_blocking(move || find_and_unpack(&caches, &roots, &asked, mode, &scratch)).await;
    let found = found.unwrap_or_else(|why| {
        // Treat a broken cache as a miss: it must not fail the job.
        context.warn(&why.to_string());
        None
    });
    let Some((entry, files)) = found else {
        if must_hit {
            return Err(ActionError::CacheMiss(key));
        }
        context.log_message(&format!("Cache not found for input keys: {keys}"));
        let mut left = StepResult::with_outputs([primary]);
        left.state.push(state);
        return Ok(left);
    };
    context.log_message(&if mode == RestoreMode::LookupOnly {
        format!("Cache found and can be restored from key: {}", entry.key)
    } else {
        let CacheEntry { key, size, .. } = &entry;
        format!("Cache restored from key: {key} ({files} files, {size} bytes)")
    });
    let hit = is_same_key(&key, &entry.key).to_string();
    let mut left = StepResult::with_outputs([
        primary,
        ("cache-hit", hit),
        ("cache-matched-key", entry.key.clone()),
    ]);
    left.state = vec![state, (MATCHED_KEY.to_owned(), entry.key)];
    Ok(left)
}

/// `actions/cache/save`. Like at GitHub, a cache that can't be saved doesn't fail the step.
pub(super) async fn save_cache(context: &mut StepContext<'_>) -> Result<StepResult, ActionError> {
    let mut asked = CacheInputs::from_inputs(context)?;
    // Use the key of the main part: files that went into `hashFiles` may have changed.
    if let Some(key) = context.saved_state(PRIMARY_KEY) {
        asked.key = key.to_owned();
    }
    let key = asked.key.clone();
    if context
        .saved_state(MATCHED_KEY)
        .is_some_and(|matched| is_same_key(&key, matched))
    {
        context.log_message(&format!(
            "Cache hit occurred on the primary key {key}, not saving cache."
        ));
        return Ok(StepResult::default());
    }
    let Some(caches) = context.caches.cloned() else {
        context.notice("this run has no cache storage; nothing is saved");
        return Ok(StepResult::default());
    };
    let (roots, scratch) = (cache_roots(context), context.folders.temp.clone());
    let saved = run_blocking(move || pack_and_save(&caches, &roots, &asked, &scratch)).await?;
    match saved {
        SaveOutcome::Saved(entry) => context.log_message(&format!(
            "Cache saved with key: {key} ({} bytes)",
            entry.size
        )),
        SaveOutcome::Nothing => {
            context.warn("nothing to cache: none of the paths exist; check `path` of the step")
        }
        SaveOutcome::Refused(SaveCacheError::Taken) => context.log_message(&format!(
            "Failed to save: there is a cache with the key {key}, another job may have saved it."
        )),
        SaveOutcome::Refused(why) => context.warn(&format!("the cache {key} is not saved: {why}")),
    }
    Ok(StepResult::default())
}

/// Whether a cache is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestoreMode {
    Unpack,
    LookupOnly,
}

enum SaveOutcome {
    Saved(CacheEntry),
    Nothing,
    Refused(SaveCacheError),
}

/// Finds an entry and unpacks it, unless only looked up; returns it with the number of its files.
fn find_and_unpack(
    caches: &JobCaches,
    roots: &SearchRoots,
    asked: &CacheInputs,
    mode: RestoreMode,
    scratch: &std::path::Path,
) -> Result<Option<(CacheEntry, usize)>, ActionError> {
    let version = cache_archive::archive_version(&asked.paths);
    let Some(entry) = caches.find_entry(&version, &asked.key, &asked.restore_keys)? else {
        return Ok(None);
    };
    if mode == RestoreMode::LookupOnly {
        return Ok(Some((entry, 0)));
    }
    let own = unique_file_in(scratch);
    let unpacked = caches
        .link_entry(&entry, &own)
        .map_err(ActionError::from)
        .and_then(|path| Ok(cache_archive::unpack_cache(&path, roots, &asked.paths)?));
    let _ = std::fs::remove_file(own);
    let files = unpacked.map_err(|error| ActionError::CacheNotRestored {
        key: entry.key.clone(),
        source: Box::new(error),
    })?;
    Ok(Some((entry, files)))
}

fn pack_and_save(
    caches: &JobCaches,
    roots: &SearchRoots,
    asked: &CacheInputs,
    scratch: &std::path::Path,
) -> Result<SaveOutcome, ActionError> {
    let version = cache_archive::archive_version(&asked.paths);
    if caches.has_entry(&version, &asked.key) {
        return Ok(SaveOutcome::Refused(SaveCacheError::Taken));
    }
    let own = unique_file_in(scratch);
    let packed = cache_archive::pack_cache(roots, &asked.paths, &own);
    let saved = packed.map(|any| {
        if !any {
            return SaveOutcome::Nothing;
        }
        let kept = caches.save_entry(&version, &asked.key, &own);
        kept.map_or_else(SaveOutcome::Refused, SaveOutcome::Saved)
    });
    let _ = std::fs::remove_file(own);
    Ok(saved?)
}

/// A unique file name.
fn unique_file_in(folder: &std::path::Path) -> std::path::PathBuf {
    let now = jiff::Timestamp::now().as_nanosecond();
    folder.join(format!("_cache-{now}"))
}

/// Not restricted to the job's folders: tools keep caches anywhere.
fn cache_roots(context: &StepContext<'_>) -> SearchRoots {
    SearchRoots {
        root: context.folders.workspace.clone(),
        home: context.folders.home.clone(),
        within: Vec::new(),
    }
}

/// Like GitHub: case-insensitive.
fn is_same_key(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}
