//! A set of flags that is replaced while it is in use.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::definition::{FlagSet, FlagSetSource};
use crate::diagnostic::{FlagDiagnostic, FlagDocument, FlagFileError, FlagProblem};

/// The flags in use. Readers never wait: an evaluation that has begun ends with the set it began with.
///
/// *Invariant*: a file that is refused, and a file that would give all users other buckets, leave the last good set in use.
#[derive(Debug)]
pub struct FlagSetHandle {
    current: ArcSwap<FlagSet>,
}

impl FlagSetHandle {
    /// A handle that starts with `flag_set`.
    #[must_use]
    pub fn new(flag_set: FlagSet) -> FlagSetHandle {
        FlagSetHandle {
            current: ArcSwap::from_pointee(flag_set),
        }
    }

    /// The set in use. Take it once per request, so that all flags of a request are of one set.
    #[must_use]
    pub fn current(&self) -> Arc<FlagSet> {
        self.current.load_full()
    }

    /// Reads a new file and puts it in use, all of it at once.
    ///
    /// # Errors
    /// As for [`FlagSet::read`], and for another bucketing version than the set in use; the set in use stays.
    pub fn reload(&self, source: &FlagSetSource<'_>) -> Result<Arc<FlagSet>, FlagFileError> {
        let flag_set = FlagSet::read(source)?;
        let current = self.current().bucketing();
        if flag_set.bucketing() != current {
            return Err(FlagFileError {
                diagnostics: vec![FlagDiagnostic {
                    document: FlagDocument::Details,
                    pointer: "/bucketing".to_owned(),
                    position: None,
                    problem: FlagProblem::BucketingChanged {
                        current,
                        new: flag_set.bucketing(),
                    },
                }],
                unreported: 0,
            });
        }
        let flag_set = Arc::new(flag_set);
        self.current.store(Arc::clone(&flag_set));
        Ok(flag_set)
    }

    /// Puts a set in use whatever its bucketing version is.
    pub fn replace(&self, flag_set: Arc<FlagSet>) {
        self.current.store(flag_set);
    }
}
