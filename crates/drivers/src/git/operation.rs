//! The two operations of git's smart HTTP.

/// The operation that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitOperation {
    /// Clone or fetch.
    Read,
    /// Push.
    Write,
}

impl GitOperation {
    /// The operation of `method` on `path` (the part after `/git/{service}/` or `/git/{service}.git/`); `None` for anything
    /// else, which must be answered with 404.
    #[must_use]
    pub fn from_request(method: &http::Method, path: &str, query: Option<&str>) -> Option<Self> {
        let service = match path {
            "info/refs" if method == http::Method::GET => query?
                .split('&')
                .find_map(|pair| pair.strip_prefix("service="))?,
            service if method == http::Method::POST => service,
            _ => return None,
        };
        match service {
            "git-upload-pack" => Some(Self::Read),
            "git-receive-pack" => Some(Self::Write),
            _ => None,
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Read => "answer a fetch",
            Self::Write => "answer a push",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_smart_http_exists() {
        let of = |method: &str, path: &str, query: Option<&str>| {
            GitOperation::from_request(&method.parse().unwrap(), path, query)
        };
        assert_eq!(
            of("GET", "info/refs", Some("service=git-upload-pack")),
            Some(GitOperation::Read)
        );
        assert_eq!(
            of("GET", "info/refs", Some("a=b&service=git-receive-pack")),
            Some(GitOperation::Write)
        );
        assert_eq!(
            of("POST", "git-upload-pack", None),
            Some(GitOperation::Read)
        );
        assert_eq!(
            of("POST", "git-receive-pack", None),
            Some(GitOperation::Write)
        );
        for (method, path, query) in [
            ("GET", "info/refs", None),
            ("GET", "info/refs", Some("service=git-shell")),
            ("GET", "HEAD", None),
            ("GET", "objects/info/packs", None),
            ("POST", "info/refs", Some("service=git-upload-pack")),
            ("POST", "../x.git/git-upload-pack", None),
            ("DELETE", "git-receive-pack", None),
        ] {
            assert_eq!(of(method, path, query), None, "{method} {path}");
        }
    }
}
