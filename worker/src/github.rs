//! GitHub jobs: steps, contexts, commands and files.
