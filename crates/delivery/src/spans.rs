//! The spans of a delivery, for a program that exports traces. A program that does not enable [`TARGET`] pays for none of
//! them: the spans are disabled where they are created, before their fields are evaluated.

use tracing::Span;

/// The target of every span of a delivery, and of nothing else. It begins as no module does: filters of targets compare
/// beginnings.
pub const TARGET: &str = "delivery_spans";

/// Returns the span of this program in which the code runs (None: none, or a span of another library).
pub(crate) fn current() -> Option<Span> {
    let span = Span::current();
    span.metadata().is_some_and(|metadata| metadata.target() == TARGET).then_some(span)
}
