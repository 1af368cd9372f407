//! The data plane: a reverse proxy with exact sticky weights; a process of its own.
