//! The laws of each kind, to be run on every registered plugin.
