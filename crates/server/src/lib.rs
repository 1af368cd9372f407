//! HTTP API, git remote, SSE, pages.
