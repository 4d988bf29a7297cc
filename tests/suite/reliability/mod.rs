//! Crashes, outages, failover, and an API server that misbehaves.

mod api_faults;
mod failover;
mod faults;
