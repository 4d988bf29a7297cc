//! Drain and pipeline beside the ceiling, what a delivery costs, and how that grows.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::Operator;
use tokio::time::sleep;

use crate::{
    Scale,
    bare::{self, AT_ONCE, Bare},
    bare_loop, receiver,
    report::{Report, median, spread},
    say,
    stage::{Stage, Tenant},
    usage,
};

/// Notifications are created by so many requests at once.
pub const CREATORS: usize = 32;

/// The longest run, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Measures in rounds, the bare runs between the operator's.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) {
    let status = delivered_status(stage).await;
    let mut rounds = Vec::new();
    for number in 1..=scale.rounds {
        say(format!("round {number} of {}", scale.rounds));
        rounds.push(round(stage, scale, number, &status, report).await);
    }
    tell(&rounds, report);
    for count in [1_000, 10_000] {
        let count = count.min(scale.backlog);
        say(format!("growth: a backlog of {count}"));
        let tenant = stage.tenant(&format!("growth-{count}")).await;
        let (drain, operator) = drain(stage, &tenant, count).await;
        operator.terminate().await.unwrap();
        grown(count, &drain, report);
    }
}

/// Bare and measured runs that follow each other.
struct Round {
    /// For each of [`AT_ONCE`].
    bare: Vec<Bare>,
    drain: Drain,
    /// Deliveries a second.
    pipeline: f64,
    /// Deliveries a second of the bare loop.
    bare_loop: f64,
}

async fn round(stage: &Stage, scale: &Scale, number: usize, status: &Value, report: &mut Report) -> Round {
    let mut bare = Vec::new();
    let mut run_bare = async |at_once: usize| {
        let run = bare::run(stage, &format!("bare-{number}-{at_once}"), scale.run, status, at_once).await;
        say(format!("{at_once} at once: {:.0} bare creates/s, {:.0} bare patches/s", run.creates, run.patches));
        bare.push(run);
    };
    // Each number at once has each place in turn.
    let mut at_once = AT_ONCE;
    at_once.rotate_left(number % AT_ONCE.len());
    run_bare(at_once[0]).await;
    let before = Writes::now(stage).await;
    let tenant = stage.tenant(&format!("drain-{number}")).await;
    let (drain, operator) = drain(stage, &tenant, scale.run).await;
    say(format!("drain: {:.0} deliveries/s", drain.rate));
    run_bare(at_once[1]).await;
    let pipeline = pipeline(stage, &tenant, &operator, scale.run).await;
    say(format!("pipeline: {pipeline:.0} deliveries/s"));
    operator.terminate().await.unwrap();
    if number == 1 {
        sleep(Duration::from_secs(1)).await; // the audit log follows
        Writes::now(stage).await.report(&before, 2 * scale.run, report);
    }
    run_bare(at_once[2]).await;
    let tenant = stage.tenant(&format!("loop-{number}")).await;
    let bare_loop = bare_loop::drain(stage, &tenant, scale.run, status).await;
    say(format!("bare loop: {bare_loop:.0} deliveries/s"));
    bare.sort_by_key(|run| run.at_once);
    Round { bare, drain, pipeline, bare_loop }
}

/// What the rounds say. Which number at once is the best, all rounds decide together: the best of three in a single round
/// would be the one that the machine's moods favoured.
fn tell(rounds: &[Round], report: &mut Report) {
    let middle = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let best = |figure: fn(&Bare) -> f64| {
        let rate = |number: &usize| middle(&|round| figure(&round.bare[*number]));
        (0..AT_ONCE.len()).max_by(|one, other| rate(one).total_cmp(&rate(other))).unwrap()
    };
    let (creates, patches) = (best(|bare| bare.creates), best(|bare| bare.patches));
    let ideal = |round: &Round| 1.0 / (1.0 / round.bare[creates].creates + 1.0 / round.bare[patches].patches);
    let mut rate = |what: &str, figure: &dyn Fn(&Round) -> f64| {
        report.row(what, format!("{:.0}/s", middle(figure)), "");
    };
    rate(&format!("bare creates, {} at once", AT_ONCE[creates]), &|round| round.bare[creates].creates);
    rate(&format!("bare status patches, {} at once", AT_ONCE[patches]), &|round| round.bare[patches].patches);
    rate("drain of a backlog", &|round| round.drain.rate);
    rate("drain of a backlog by a bare loop", &|round| round.bare_loop);
    rate("pipeline", &|round| round.pipeline);
    let of_patches = |rate: f64, round: &Round| rate / round.bare[patches].patches;
    let each = |ratio: &dyn Fn(&Round) -> f64| rounds.iter().map(ratio).collect::<Vec<_>>();
    report.at_least("drain ÷ bare patches", each(&|round| of_patches(round.drain.rate, round)), 0.9);
    report.at_least("pipeline ÷ ideal", each(&|round| round.pipeline / ideal(round)), 0.9);
    let mut ratio = |what: &str, figure: &dyn Fn(&Round) -> f64| report.row(what, spread(each(figure)), "");
    ratio("bare loop ÷ bare patches", &|round| of_patches(round.bare_loop, round));
    ratio("drain ÷ bare loop", &|round| round.drain.rate / round.bare_loop);
    let mut time = |what: &str, figure: &dyn Fn(&Round) -> Duration| {
        report.row(&format!("CPU of {what}"), format!("{:.2} ms", middle(&|round| millis(figure(round)))), "");
    };
    time("API server and etcd for a bare patch", &|round| round.bare[patches].patch_cpu);
    time("API server and etcd for a delivery", &|round| round.drain.control_plane_cpu);
    time("the operator for a delivery", &|round| round.drain.cpu);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// One line of how the cost of a delivery grows.
pub fn grown(count: usize, drain: &Drain, report: &mut Report) {
    let [cpu, control_plane_cpu] = [drain.cpu, drain.control_plane_cpu].map(millis);
    let costs = format!("{cpu:.2} ms, {control_plane_cpu:.2} ms, {:.0}/s", drain.rate);
    report.row(&format!("drain of {count}: CPU for a delivery of operator, of API server and etcd; rate"), costs, "");
}

/// How a backlog was drained.
pub struct Drain {
    /// Deliveries a second, from the first POST to the last outcome written.
    pub rate: f64,
    /// The operator's processor time for each.
    pub cpu: Duration,
    /// That of the API server and etcd.
    pub control_plane_cpu: Duration,
}

/// Creates a backlog, then starts an operator and waits until all is delivered.
async fn drain(stage: &Stage, tenant: &Tenant, count: usize) -> (Drain, Operator) {
    let manifests = (0..count).map(bare::manifest).collect();
    bare::create(&stage.creator, &tenant.namespace, manifests, CREATORS).await;
    let operator = tenant.operator(&[]).await;
    let drain = drained(stage, &operator, &tenant.namespace, count).await;
    (drain, operator)
}

/// Waits until a started operator has delivered `count` in the namespace.
pub async fn drained(stage: &Stage, operator: &Operator, namespace: &str, count: usize) -> Drain {
    let first = stage.receiver.first(namespace).await;
    let (cpu, control_plane_cpu) = (usage::cpu(operator.process().pid()), stage.control_plane_cpu().await);
    until_delivered(operator, count).await;
    let share = |time: Duration| time / u32::try_from(count).unwrap();
    Drain {
        rate: count as f64 / (receiver::now() - first).as_secs_f64(),
        cpu: share(usage::cpu(operator.process().pid()) - cpu),
        control_plane_cpu: share(stage.control_plane_cpu().await - control_plane_cpu),
    }
}

/// Creates while the operator runs; deliveries a second from the first create to the last outcome written.
async fn pipeline(stage: &Stage, tenant: &Tenant, operator: &Operator, count: usize) -> f64 {
    let before = delivered(operator).await;
    let manifests = (before..before + count).map(bare::manifest).collect();
    let begun = Instant::now();
    bare::create(&stage.creator, &tenant.namespace, manifests, CREATORS).await;
    until_delivered(operator, before + count).await;
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Waits until the operator has delivered so many since its start.
pub async fn until_delivered(operator: &Operator, count: usize) {
    let (begun, mut told) = (Instant::now(), Instant::now());
    loop {
        assert!(operator.process().exit_code().is_none() && begun.elapsed() < PATIENCE, "{}", operator.logs());
        let delivered = delivered(operator).await;
        if delivered >= count {
            return;
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            say(format!("{delivered} of {count} delivered"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn delivered(operator: &Operator) -> usize {
    let metrics = operator.metrics().await.unwrap_or_default();
    let name = r#"tidings_notifications_finished_total{phase="Delivered"} "#;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
}

/// The status of a delivered Notification, as the operator writes it.
async fn delivered_status(stage: &Stage) -> Value {
    let tenant = stage.tenant("sample").await;
    let operator = tenant.operator(&[]).await;
    bare::create(&stage.creator, &tenant.namespace, vec![bare::manifest(0)], 1).await;
    until_delivered(&operator, 1).await;
    operator.terminate().await.unwrap();
    let get = ["get", "notification", "n-0", "-n", &tenant.namespace, "-o", "jsonpath={.status}"];
    serde_json::from_str(&stage.plane.kubectl(&get).await.unwrap().ok().unwrap()).unwrap()
}

/// Writes that the API server has answered, by the audit log, the creator's apart.
struct Writes {
    notifications: usize,
    subscribers: usize,
    leases: usize,
}

impl Writes {
    async fn now(stage: &Stage) -> Self {
        let audit = stage.plane.audit().await.unwrap();
        let count = |resource: &str| {
            let of_operator = |user: &str| user.starts_with("system:serviceaccount:drain-");
            let written = audit.iter().filter(|event| event.is_write() && of_operator(&event.user));
            written.filter(|event| event.resource == resource && event.stage == "ResponseComplete").count()
        };
        Self { notifications: count("notifications"), subscribers: count("subscribers"), leases: count("leases") }
    }

    fn report(&self, before: &Self, deliveries: usize, report: &mut Report) {
        let each = (self.notifications - before.notifications) as f64 / deliveries as f64;
        // The audit log follows the answers: fewer writes than deliveries would mean that some were not counted.
        assert!(each >= 1.0, "{each} writes for a delivery");
        report.at_most("writes to Notifications for a delivery", each, 1.0, "");
        let beside = format!("{} and {}", self.subscribers - before.subscribers, self.leases - before.leases);
        report.row(&format!("writes to Subscribers and Leases beside {deliveries} deliveries"), beside, "");
    }
}
