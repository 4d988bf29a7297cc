//! Pages and files that are generated, or that name tests.

mod chart_values;
mod golden;
mod messages;
mod monitoring;
mod prose;
mod reference;
mod troubleshooting;
