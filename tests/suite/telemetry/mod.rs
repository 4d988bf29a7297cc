//! What the operator reports about its work to other programs: traces and log lines.

mod collector;
mod logs;
mod traces;
