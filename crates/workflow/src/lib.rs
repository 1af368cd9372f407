//! GitHub Actions files: model, expressions, job graph. Pure.
