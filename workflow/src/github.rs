//! GitHub Actions workflow files: reading, checking, planning.
