//! Keeps each user on one instance of a release, for apps that hold sessions in memory (socket.io with long polling, uploads in
//! parts, sign-in flows).
//!
//! # Invariants
//!
//! - The release is chosen first, by weight; affinity only chooses among its instances.
//! - An instance that was added takes no users away from the others where a cookie names the instance.
//!
//! # Failure modes
//!
//! - The instance is gone, refuses connections, or was tried already: another one is chosen, and the cookie names it from then on.

use http::{HeaderMap, HeaderValue};
use shipway_flags::hash_key;

use crate::{
    match_rules::cookie_value,
    protocol::{InstanceAffinity, ServiceRoute},
};

/// An instance that a request may go to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AffinityCandidate<'i> {
    pub(crate) id: &'i str,
    /// What the cookie says of it.
    pub(crate) tag: u32,
    pub(crate) is_usable: bool,
}

/// The affinity of a route.
#[derive(Debug)]
pub(crate) enum CompiledAffinity {
    Cookie { name: String, path: String },
    UserKey,
}

impl CompiledAffinity {
    pub(crate) fn new(route: &ServiceRoute) -> Option<Self> {
        Some(match route.instance_affinity.as_ref()? {
            InstanceAffinity::Cookie(name) => Self::Cookie {
                name: name.clone(),
                path: cookie_path(route),
            },
            InstanceAffinity::UserKey => Self::UserKey,
        })
    }

    /// Index of the instance that this request is kept on; `None` if it may go to any.
    pub(crate) fn find_instance<'i>(
        &self,
        headers: &HeaderMap,
        user_key: Option<&str>,
        candidates: impl Iterator<Item = AffinityCandidate<'i>>,
    ) -> Option<usize> {
        let mut usable = candidates.enumerate().filter(|(_, it)| it.is_usable);
        let found = match self {
            Self::Cookie { name, .. } => {
                let tag = tag_in_cookie(headers, name)?;
                usable.find(|(_, it)| it.tag == tag)
            }
            // Rendezvous hashing: a change of the instances moves as few users as possible.
            Self::UserKey => {
                let key = user_key?;
                usable.max_by_key(|(_, it)| hash_key(it.id, key))
            }
        };
        found.map(|(index, _)| index)
    }

    /// The `Set-Cookie` that keeps the user on this instance; `None` if the request's cookie names it already.
    pub(crate) fn set_cookie(&self, headers: &HeaderMap, tag: u32) -> Option<HeaderValue> {
        let Self::Cookie { name, path } = self else {
            return None;
        };
        if tag_in_cookie(headers, name) == Some(tag) {
            return None;
        }
        let cookie = format!("{name}={tag:08x}; Path={path}; HttpOnly; SameSite=Lax");
        HeaderValue::try_from(cookie).ok()
    }
}

fn tag_in_cookie(headers: &HeaderMap, name: &str) -> Option<u32> {
    u32::from_str_radix(cookie_value(headers, name)?, 16).ok()
}

/// The path of the route: services that share a host don't overwrite each other's cookies.
fn cookie_path(route: &ServiceRoute) -> String {
    let path = route.path_prefix.as_deref().unwrap_or_default();
    let path = path.trim_matches('/');
    let is_plain = path.bytes().all(|it| it.is_ascii_graphic() && it != b';');
    match is_plain {
        true => format!("/{path}"),
        false => "/".to_owned(),
    }
}
