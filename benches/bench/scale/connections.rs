//! Connections that a stalling server leaves behind, and connections that block the operator's own endpoint.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use testkit::{Operator, RawServer, loopback::get};
use tokio::{
    io::{copy, copy_bidirectional, sink},
    net::TcpStream,
    time::sleep,
};

use super::metrics::{finished, until};
use crate::{
    amounts::Scale,
    memory::ready,
    objects::{self, CREATORS},
    report::Report,
    say::say,
    stage::Stage,
    usage,
};

/// All deliveries end within this.
const LIMIT: Duration = Duration::from_secs(300);
/// The operator gives up a connection that is not up before this, and an idle one.
const SETTLED: Duration = Duration::from_secs(15);
/// More descriptors than before, afterwards: those of a few connections to the API server.
const MORE: f64 = 10.0;
/// Connections that request nothing, to each address that the operator serves.
const IDLE: usize = 200;
/// The goal for `/healthz`, in milliseconds: the time-out of a probe.
const HEALTH: f64 = 1_000.0;
/// The longest wait for that answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Bytes of data in an event.
const BYTES: usize = 64;

/// Both rows.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    let tenant = stage.tenant("stalls").await;
    let server = stalling(stage.receiver.webhook_address().to_owned()).await;
    stage.subscribers("stalls", vec![stage.manifest("stalled", &server.url("/ok/stalls"))]).await;
    let operator = ready(&tenant, &[]).await;
    sleep(scale.rest).await;
    descriptors(stage, &operator, scale.stalled, report).await;
    drop(server);
    health(&operator, report).await;
    operator.kill().await.unwrap();
}

/// A server that serves one connection at a time and lets the TLS handshakes of all others wait.
async fn stalling(webhook: String) -> RawServer {
    let serving = Arc::new(AtomicBool::new(false));
    let serve = move |mut stream: TcpStream| {
        let (serving, webhook) = (serving.clone(), webhook.clone());
        async move {
            if serving.swap(true, Ordering::Relaxed) {
                // Until the client closes it.
                let _ = copy(&mut stream, &mut sink()).await;
                return;
            }
            if let Ok(mut upstream) = TcpStream::connect(&webhook).await {
                let _ = copy_bidirectional(&mut stream, &mut upstream).await;
            }
            serving.store(false, Ordering::Relaxed);
        }
    };
    RawServer::tcp(serve).await.unwrap()
}

async fn descriptors(stage: &Stage, operator: &Operator, count: usize, report: &mut Report) {
    let pid = operator.process().pid();
    let before = usage::descriptors(pid);
    let manifests = (0..count).map(|number| objects::manifest_for("stalled", number, BYTES)).collect();
    objects::create(&stage.creator, "stalls", manifests, CREATORS).await;
    let mut peak = before;
    let delivered = until(LIMIT, async || {
        peak = peak.max(usage::descriptors(pid));
        finished(operator).await >= count
    });
    let took = delivered.await;
    say(format!("{} of {count} delivered in {took:?}", finished(operator).await));
    sleep(SETTLED).await;
    let after = usage::descriptors(pid);
    let what = format!("descriptors over {count} deliveries to a server that stalls TLS handshakes");
    report.row(&format!("{what}: before, peak, after"), format!("{before}, {peak}, {after}"), "");
    let what = "— more than before, afterwards";
    match took {
        Some(_) => report.at_most(what, after as f64 - before as f64, MORE, ""),
        None => {
            let instead = format!("{} of {count} finished within {} s", finished(operator).await, LIMIT.as_secs());
            report.missed(what, &instead, &format!("≤ {MORE}"));
        }
    }
}

async fn health(operator: &Operator, report: &mut Report) {
    let address = operator.health_address();
    let mut idle = Vec::new();
    for address in [address, operator.admin_address()] {
        for _ in 0..IDLE {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
    }
    let begun = Instant::now();
    let answer = get(address, "/healthz", ANSWER).await;
    let time = begun.elapsed().as_secs_f64() * 1e3;
    let what = format!("/healthz under {IDLE} idle connections to each address of the operator");
    // An address that closes the connection at once is quick, but it is no answer.
    match answer {
        Ok((200, _)) => report.at_most(&what, time, HEALTH, " ms"),
        other => report.missed(&what, &format!("{other:?} after {time:.0} ms"), &format!("≤ {HEALTH} ms")),
    }
    drop(idle);
}
