//! Logs as the web client's viewer parses them.
