//! How each fault of the plan is made, and unmade after its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use testkit::endpoints::Reply;
use testkit::proxies::{Call, Link, Treatment};
use testkit::{Behaviour, Part, Result, TcpProxy};
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{sleep, timeout};

use crate::plan::{Fault, Halt};
use crate::random::Random;
use crate::record::{Window, close};
use crate::replicas::NAMES;
use crate::stage::{Rule, Stage};
use crate::{others, relist, rights};

/// A killed program of the control plane comes back after this.
const DOWN: Duration = Duration::from_secs(2);
/// Before its end the leader's status writes are held up for so long.
const STRANDED: Duration = Duration::from_secs(2);
/// The first of them is waited for so long.
const NOBODY_WRITES: Duration = Duration::from_secs(30);
/// How much longer a stopped operator stays stopped, past its Lease, until another operator leads.
const FOLLOWED: Duration = Duration::from_secs(20);

/// How many Notifications a fault creates at once: for an absence of all operators, and for a queue.
const ABSENT: u64 = 300;
const QUEUED: u64 = 30;
/// Their numbers begin here, beyond those of all others.
const FIRST_OF_BURSTS: u64 = 1_000_000;
/// The second leader delivers for so long.
const DELIVERED: Duration = Duration::from_secs(4);
/// It has ended by then; what takes longer is a finding.
const ENDED: Duration = Duration::from_secs(50);
/// The first has found its way to the Lease by then.
const GOES_ON: Duration = Duration::from_secs(12);

/// How a fault shares the choice of who leads.
enum Leaders<'a> {
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>),
    Together(#[allow(dead_code, reason = "held")] RwLockReadGuard<'a, ()>),
    Apart,
}

/// Makes the fault with this number, and returns when it is over.
///
/// # Errors
/// When a process cannot be signalled or started. A process that another fault has ended is no error.
pub(crate) async fn make(stage: &Arc<Stage>, number: u64, fault: Fault) -> Result<()> {
    let random = Random::of(stage.seed, "fault", number);
    // While the Lease changes hands twice, no other fault decides who leads.
    let _leaders = match fault {
        Fault::LeaseTwice(_) => Leaders::Alone(stage.leaders.write().await),
        _ if fault.moves_the_lease() => Leaders::Together(stage.leaders.read().await),
        _ => Leaders::Apart,
    };
    match fault {
        Fault::KillLeader => signal(stage, stage.leader(), "KILL").await,
        Fault::ReplaceLeader => stage.replicas.hold(stage.leader()).await.terminate().await,
        Fault::KillStandby => signal(stage, stage.replicas.others(stage.leader())[0], "KILL").await,
        Fault::StopLeader(time) => stop_leader(stage, async |_| sleep(time).await).await,
        Fault::KillApiServer => {
            // Its connections end with it; the proxy before it would keep them.
            stage.replicas.links().for_each(TcpProxy::reset);
            stage.record.lock().unwrap().unready.push(Window::open());
            stage.plane().kill_for(Part::ApiServer, DOWN).await?;
            stage.client.ready().await;
            close(&mut stage.record.lock().unwrap().unready);
        }
        Fault::KillEtcd => stage.plane().kill_for(Part::Etcd, DOWN).await?,
        Fault::StopApiServer(time) => stop_part(stage, Part::ApiServer, time).await,
        Fault::StopEtcd(time) => stop_part(stage, Part::Etcd, time).await,
        Fault::CutWatches => stage.replicas.links().for_each(TcpProxy::reset),
        Fault::LeaderLink(link, time) => {
            let way = stage.replicas.link(stage.leader());
            way.set(link);
            sleep(time).await;
            way.set(Link::Pass);
        }
        Fault::ApiLink(link, time) => {
            if link == Link::Refuse {
                stage.replicas.links().for_each(TcpProxy::reset);
            }
            stage.replicas.links().for_each(|way| way.set(link));
            sleep(time).await;
            stage.replicas.links().for_each(|way| way.set(Link::Pass));
        }
        Fault::ApiRefuses(code, time) => {
            // Not the Lease: then nothing but changes of leader would be tried.
            let wanted = |call: &Call| !call.path.contains("/leases");
            stage.rule(sleep(time), some(random, 33, Treatment::Answer(code), wanted)).await;
        }
        Fault::LoseAnswers(time) => {
            stage.rule(sleep(time), some(random, 50, Treatment::LoseAnswer, is_status_write)).await
        }
        Fault::LateWrites(time) => {
            let mut random = random;
            let late = Treatment::Late(random.time(1_000..6_000));
            stage.rule(sleep(time), some(random, 33, late, is_status_write)).await;
        }
        Fault::StrandWrites(stopped) => strand_writes(stage, random, stopped).await,
        Fault::BreakListings(time) => {
            // Watches end, so that there are listings.
            let wanted = |call: &Call| call.is_list_of("notifications") || call.is_list_of("subscribers");
            let broken = stage.rule(sleep(time), some(random, 70, Treatment::BreakOff(3_000), wanted));
            let expired = stage.rule(sleep(time / 2), Box::new(expired));
            stage.replicas.links().for_each(TcpProxy::reset);
            tokio::join!(broken, expired);
        }
        Fault::ExpireWatches(time) => {
            let expired = stage.rule(sleep(time), Box::new(expired));
            stage.replicas.links().for_each(TcpProxy::reset);
            expired.await;
        }
        Fault::WebhookLink(link, time) => {
            // What is only slower loses no answer.
            if !matches!(link, Link::Delay(_)) {
                stage.record.lock().unwrap().bad_ways.push(Window::open());
            }
            bad_way(&stage.webhook_link, link, time).await;
            close(&mut stage.record.lock().unwrap().bad_ways);
            others::open_all(stage).await;
        }
        Fault::TokenLink(link, time) => {
            bad_way(&stage.token_link, link, time).await;
            others::open_all(stage).await;
        }
        Fault::TokenRefuses(code, time) => {
            stage.tokens().answer_always(Behaviour::reply(Reply::status(code)));
            sleep(time).await;
            stage.tokens().behave();
            others::open_all(stage).await;
        }
        Fault::RevokeTokens => stage.tokens().tokens().revoke_all(),
        Fault::RotateSecret(time) => stage.rotate_secret(&format!("s3cr3t-{number}"), time).await,
        Fault::StatusWrites(time) => others::status_storm(stage, time, random).await,
        Fault::LabelWrites(time) => others::label_storm(stage, time, random).await,
        Fault::Relist => Box::pin(relist::relist(stage, number, random)).await,
        Fault::Absence(time) => absence(stage, number, time).await?,
        Fault::LeaseTwice(how) => lease_twice(stage, number, how).await,
        Fault::Bar(time) => rights::bar(stage, time).await,
        Fault::Doom => rights::doom(stage).await,
    }
    Ok(())
}

async fn signal(stage: &Stage, number: usize, signal: &str) {
    // An operator that has just exited is restarted instead of signalled.
    let _ = stage.replicas.hold(number).await.process().signal(signal).await;
}

/// Stops the leader for as long as `over`, given its number, takes.
async fn stop_leader<T>(stage: &Stage, over: impl AsyncFnOnce(usize) -> T) -> T {
    let leader = stage.leader();
    let window = Window::open();
    stage.record.lock().unwrap().stops.push(window);
    signal(stage, leader, "STOP").await;
    let over = over(leader).await;
    // Before it goes on, so that whatever it does then lies behind; two may be stopped at once.
    stage.record.lock().unwrap().stops.iter_mut().filter(|stop| **stop == window).for_each(Window::close);
    signal(stage, leader, "CONT").await;
    over
}

/// Each write arrives at a different time, most of them while another operator leads.
async fn strand_writes(stage: &Stage, mut random: Random, stopped: Option<Duration>) {
    let (seed, writes) = (random.next(), Arc::new(AtomicU64::new(0)));
    let held = Arc::clone(&writes);
    let hold = move |call: &Call| {
        if !is_status_write(call) {
            return Treatment::Pass;
        }
        let number = held.fetch_add(1, Ordering::Relaxed);
        Treatment::Late(Random::of(seed, "write", number).time(16_000..40_000))
    };
    let gathered = async {
        // Another fault may have left no operator to write.
        while writes.load(Ordering::Relaxed) == 0 {
            sleep(STRANDED / 10).await;
        }
        sleep(STRANDED).await;
    };
    stage.rule(timeout(NOBODY_WRITES, gathered), Box::new(hold)).await;
    match stopped {
        Some(time) => {
            // On a slow machine, another operator may need longer to lead.
            let followed = async |leader: usize| {
                while stage.leader() == leader {
                    sleep(STRANDED / 10).await;
                }
            };
            let until_followed = async |leader: usize| {
                sleep(time).await;
                let _ = timeout(FOLLOWED, followed(leader)).await;
            };
            stop_leader(stage, until_followed).await;
        }
        None => signal(stage, stage.leader(), "KILL").await,
    }
}

async fn stop_part(stage: &Stage, part: Part, time: Duration) {
    // An operator that another fault has killed cannot be stopped.
    let _ = stage.plane().signal(part, "STOP").await;
    sleep(time).await;
    let _ = stage.plane().signal(part, "CONT").await;
}

async fn bad_way(way: &TcpProxy, link: Link, time: Duration) {
    // Connections that exist are as bad as new ones.
    if matches!(link, Link::Refuse) {
        way.reset();
    }
    way.set(link);
    sleep(time).await;
    way.set(Link::Pass);
}

/// All operators are killed, and what is created then expires before any of them is back.
async fn absence(stage: &Arc<Stage>, number: u64, time: Duration) -> Result<()> {
    let mut held = Vec::new();
    for replica in 0..NAMES.len() {
        let operator = stage.replicas.hold(replica).await;
        operator.kill().await?;
        held.push(operator);
    }
    others::burst(stage, "fleeting", FIRST_OF_BURSTS + number * ABSENT, ABSENT).await;
    sleep(time).await;
    Ok(())
}

/// The Lease changes hands twice: the leader is stopped or cut off, another one takes over and gives the Lease back,
/// and the first goes on before a third one can take it. What the first has in its queue was delivered meanwhile.
async fn lease_twice(stage: &Arc<Stage>, number: u64, how: Halt) {
    others::burst(stage, "queued", FIRST_OF_BURSTS + number * QUEUED, QUEUED).await;
    let first = stage.leader();
    let twice = async |first: usize| {
        wait_for(FOLLOWED * 2, || stage.leader() != first).await;
        let second = stage.leader();
        sleep(DELIVERED).await;
        let third = stage.replicas.others(first).into_iter().find(|other| *other != second);
        let way = stage.replicas.link(third.unwrap_or(first));
        way.set(Link::Stall);
        // Held, so that it is not started again before the first goes on.
        let mut ended = stage.replicas.hold(second).await;
        if second != first {
            ended.terminate().await;
            wait_for(ENDED, || ended.has_ended() && stage.is_free()).await;
        }
        (way, ended)
    };
    let (way, ended) = match how {
        Halt::Stop => stop_leader(stage, twice).await,
        Halt::CutOff => {
            let link = stage.replicas.link(first);
            link.set(Link::HalfOpen);
            let held = twice(first).await;
            link.set(Link::Pass);
            held
        }
    };
    wait_for(GOES_ON, || !stage.is_free()).await;
    way.set(Link::Pass);
    drop(ended);
}

/// Waits until it is so, at most for `limit`.
async fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let _ = timeout(limit, so).await;
}

/// The percentage of the selected requests that the fault affects.
fn some(mut random: Random, percent: u64, treatment: Treatment, wanted: fn(&Call) -> bool) -> Rule {
    let (seed, calls) = (random.next(), AtomicU64::new(0));
    Box::new(move |call| {
        let hit = wanted(call) && Random::of(seed, "call", calls.fetch_add(1, Ordering::Relaxed)).percent(percent);
        if hit { treatment } else { Treatment::Pass }
    })
}

fn is_status_write(call: &Call) -> bool {
    call.is_status_write_to("notifications") || call.is_status_write_to("subscribers")
}

fn expired(call: &Call) -> Treatment {
    if call.is_watch() { Treatment::Expire } else { Treatment::Pass }
}
