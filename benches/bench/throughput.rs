//! Drain and pipeline beside the ceiling, what a delivery costs, and how that grows.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::Operator;
use tokio::time::sleep;

use crate::{
    Scale,
    bare::{self, Ceiling},
    receiver,
    report::{Report, median},
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
        rounds.push(round(stage, scale, number, &status, report).await);
    }
    let middle = |figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
    let rate = |figure| format!("{:.0}/s", middle(figure));
    let time = |figure| format!("{:.2} ms", middle(figure));
    report.row("bare creates", rate(|round| round.ceiling.creates), "");
    report.row("bare status patches", rate(|round| round.ceiling.patches), "");
    report.row("drain of a backlog", rate(|round| round.drain.rate), "");
    report.at_least("drain ÷ bare patches", middle(|round| round.drain.rate / round.ceiling.patches), 0.9);
    report.row("pipeline", rate(|round| round.pipeline), "");
    report.at_least("pipeline ÷ ideal", middle(|round| round.pipeline / round.ceiling.ideal()), 0.9);
    report.row("CPU of API server and etcd for a bare patch", time(|round| millis(round.ceiling.patch_cpu)), "");
    report.row("CPU of API server and etcd for a delivery", time(|round| millis(round.drain.control_plane_cpu)), "");
    report.row("CPU of the operator for a delivery", time(|round| millis(round.drain.cpu)), "");
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
    ceiling: Ceiling,
    drain: Drain,
    /// Deliveries a second.
    pipeline: f64,
}

async fn round(stage: &Stage, scale: &Scale, number: usize, status: &Value, report: &mut Report) -> Round {
    say(format!("round {number} of {}: bare creates and status patches", scale.rounds));
    let plain = stage.tenant(&format!("bare-{number}")).await;
    let ceiling = bare::ceiling(stage, &plain, scale.run, status).await;
    say(format!("{:.0} creates/s, {:.0} patches/s; now a backlog is drained", ceiling.creates, ceiling.patches));
    let before = Writes::now(stage).await;
    let tenant = stage.tenant(&format!("drain-{number}")).await;
    let (drain, operator) = drain(stage, &tenant, scale.run).await;
    say(format!("{:.0} deliveries/s; now they are created while the operator runs", drain.rate));
    let pipeline = pipeline(stage, &tenant, &operator, scale.run).await;
    say(format!("{pipeline:.0} deliveries/s, ideal {:.0}", ceiling.ideal()));
    if number == 1 {
        sleep(Duration::from_secs(1)).await; // the audit log follows
        Writes::now(stage).await.report(&before, 2 * scale.run, report);
    }
    operator.terminate().await.unwrap();
    Round { ceiling, drain, pipeline }
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
