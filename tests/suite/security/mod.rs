//! What a hostile webhook, token service or tenant can do to the operator and to other tenants, and where secrets may
//! be shown.

pub mod canary;
mod certificates;
pub mod client_certificates;
mod egress;
mod forward_proxies;
mod hostile;
mod names;
mod panics;
mod quotes;
mod secret_access;
mod secret_values;
mod servers;
mod tenant_policies;
mod tenants;
