//! Pages and files that are generated, or that name tests.

mod golden;
mod reference;
mod troubleshooting;
