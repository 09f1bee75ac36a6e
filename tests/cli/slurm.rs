//! The local executor, with real programs.
