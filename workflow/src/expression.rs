//! GitHub's expression language, whole: lexer, parser, values, operators, functions and limits.
//!
//! Source of the rules: GitHub docs, "Evaluate expressions in workflows and actions", and the tables GitHub tests its
//! own implementation with.

