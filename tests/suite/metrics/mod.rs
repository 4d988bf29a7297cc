//! The metrics of a running operator: their formats, the page that lists them, and that each shows what it is for.

mod catalogue;
mod causes;
mod exposition;
mod more_causes;

use testkit::Operator;
use tokio::time::{Instant, sleep};

use self::exposition::Scrape;
use crate::world::PATIENCE;

/// Waits until a scrape is as `wanted`, and returns it. `wanted` returns what is missing.
async fn until_scraped(operator: &Operator, wanted: impl Fn(&Scrape) -> Result<(), String>) -> Scrape {
    let end = Instant::now() + 2 * PATIENCE;
    loop {
        let scrape = Scrape::text(&operator.metrics().await.unwrap());
        match wanted(&scrape) {
            Ok(()) => return scrape,
            Err(missing) => assert!(Instant::now() < end, "not within {:?}: {missing}", 2 * PATIENCE),
        }
        sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Waits until each of these series has at least this value.
async fn until_at_least(operator: &Operator, series: &[(&str, f64)]) -> Scrape {
    until_scraped(operator, |scrape| {
        let missing = series.iter().find(|(name, least)| scrape.value(name).is_none_or(|value| value < *least));
        missing.map_or(Ok(()), |(name, least)| Err(format!("{name} is {:?}, not {least}", scrape.value(name))))
    })
    .await
}
