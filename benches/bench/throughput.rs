//! Drain and pipeline beside the ceiling, what a delivery costs, and how that grows.

use std::time::{Duration, Instant};

use testkit::Operator;
use tidings_api::NotificationStatus;
use tokio::time::sleep;

use crate::{
    amounts::Scale,
    bare::{self, AT_ONCE, AtOnce, Bare},
    bare_loop,
    objects::{self, CREATORS},
    receiver,
    report::{Report, median, spread},
    say::say,
    stage::{Stage, Tenant},
    usage,
};

/// Deliveries on a new control plane that do not count.
const WARM_UP: usize = 500;
/// The longest run, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Measures in rounds, each measured run between two bare runs.
pub async fn measure(scale: &Scale, report: &mut Report) {
    let at_once = best(scale, report).await;
    let mut rounds = Vec::new();
    for number in 1..=scale.rounds {
        say(format!("round {number} of {}", scale.rounds));
        rounds.push(round(scale, number == 1, at_once, report).await);
    }
    print(at_once, &rounds, report);
    for count in [1_000, 10_000] {
        let count = count.min(scale.backlog);
        say(format!("growth: a backlog of {count}"));
        let (stage, _) = warmed().await;
        let (drain, operator) = drain(&stage, &stage.tenant("growth").await, count).await;
        operator.terminate().await.unwrap();
        grown(count, &drain, report);
    }
}

/// How many requests at once do best: by the median of three runs each, in turn. In a single run chance would decide.
async fn best(scale: &Scale, report: &mut Report) -> AtOnce {
    let mut runs = AT_ONCE.map(|_| Vec::new());
    for turn in 0..3 {
        let mut ceiling = Ceiling::start(scale.run).await;
        for place in 0..AT_ONCE.len() {
            // Each number at once has each place in turn.
            let which = (place + turn) % AT_ONCE.len();
            let at_once = AtOnce { creates: AT_ONCE[which], patches: AT_ONCE[which] };
            runs[which].push(ceiling.measure(at_once).await);
        }
    }
    let rate = |which: usize, figure: fn(&Bare) -> f64| median(runs[which].iter().map(figure).collect());
    for (which, at_once) in AT_ONCE.iter().enumerate() {
        let rates = [rate(which, |bare| bare.creates), rate(which, |bare| bare.patches)];
        let rates = format!("{:.0}/s, {:.0}/s", rates[0], rates[1]);
        report.row(&format!("bare creates and status patches, {at_once} at once"), rates, "");
    }
    let best = |figure| {
        AT_ONCE[(0..AT_ONCE.len()).max_by(|one, other| rate(*one, figure).total_cmp(&rate(*other, figure))).unwrap()]
    };
    AtOnce { creates: best(|bare| bare.creates), patches: best(|bare| bare.patches) }
}

/// A new control plane after deliveries that do not count, since the first of all requests take longer; and the status
/// that the operator wrote.
async fn warmed() -> (Stage, NotificationStatus) {
    let stage = Stage::start().await;
    let tenant = stage.tenant("warm-up").await;
    let (_, operator) = drain(&stage, &tenant, WARM_UP).await;
    operator.terminate().await.unwrap();
    let get = ["get", "notification", "n-0", "-n", &tenant.namespace, "-o", "jsonpath={.status}"];
    let status = serde_json::from_str(&stage.plane().kubectl(&get).await.unwrap().ok().unwrap()).unwrap();
    (stage, status)
}

/// The bare runs on a control plane of their own: what was stored and watched before would weigh on its garbage
/// collector.
struct Ceiling {
    stage: Stage,
    /// The status of a delivered Notification, as the operator writes it.
    status: NotificationStatus,
    count: usize,
    runs: Vec<Bare>,
}

impl Ceiling {
    async fn start(count: usize) -> Self {
        let (stage, status) = warmed().await;
        Self { stage, status, count, runs: Vec::new() }
    }

    /// One more bare run.
    async fn measure(&mut self, at_once: AtOnce) -> Bare {
        let name = format!("bare-{}", self.runs.len());
        let bare = bare::run(&self.stage, &name, self.count, &self.status, at_once).await;
        self.runs.push(bare);
        bare
    }

    /// A measured rate, between the last bare run and one more.
    async fn beside(&mut self, rate: f64, at_once: AtOnce) -> Beside {
        let before = *self.runs.last().expect("a bare run before");
        let after = self.measure(at_once).await;
        let middle = |figure: fn(&Bare) -> f64| f64::midpoint(figure(&before), figure(&after));
        Beside { rate, creates: middle(|bare| bare.creates), patches: middle(|bare| bare.patches) }
    }
}

/// Deliveries a second, and what the bare runs before and after did: the machine's moods last for minutes.
struct Beside {
    rate: f64,
    creates: f64,
    patches: f64,
}

impl Beside {
    fn of_patches(&self) -> f64 {
        self.rate / self.patches
    }

    fn of_ideal(&self) -> f64 {
        self.rate * (1.0 / self.creates + 1.0 / self.patches)
    }
}

/// Measured runs that follow each other.
struct Round {
    bare: Vec<Bare>,
    cost: Drain,
    drain: Beside,
    pipeline: Beside,
    bare_loop: Beside,
}

async fn round(scale: &Scale, counts_writes: bool, at_once: AtOnce, report: &mut Report) -> Round {
    let count = scale.run;
    let mut ceiling = Ceiling::start(count).await;
    ceiling.measure(at_once).await;
    let before = Writes::now(&ceiling.stage).await;
    let tenant = ceiling.stage.tenant("drain").await;
    let (cost, operator) = drain(&ceiling.stage, &tenant, count).await;
    say(format!("drain: {:.0} deliveries/s", cost.rate));
    let drain = ceiling.beside(cost.rate, at_once).await;
    let pipeline = pipeline(&ceiling.stage, &tenant, &operator, count).await;
    say(format!("pipeline: {pipeline:.0} deliveries/s"));
    operator.terminate().await.unwrap();
    if counts_writes {
        sleep(Duration::from_secs(1)).await; // the audit log follows
        Writes::now(&ceiling.stage).await.report(&before, 2 * count, report);
    }
    let pipeline = ceiling.beside(pipeline, at_once).await;
    let tenant = ceiling.stage.tenant("loop").await;
    let bare_loop = bare_loop::drain(&ceiling.stage, &tenant, count, &ceiling.status).await;
    say(format!("bare loop: {bare_loop:.0} deliveries/s"));
    let bare_loop = ceiling.beside(bare_loop, at_once).await;
    Round { bare: ceiling.runs, cost, drain, pipeline, bare_loop }
}

/// What the rounds say.
fn print(AtOnce { creates, patches }: AtOnce, rounds: &[Round], report: &mut Report) {
    let bare = |figure: fn(&Bare) -> f64| median(rounds.iter().flat_map(|round| &round.bare).map(figure).collect());
    let each = |figure: fn(&Round) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let mut rate = |what: &str, rate: f64| report.row(what, format!("{rate:.0}/s"), "");
    rate(&format!("bare creates, {creates} at once"), bare(|bare| bare.creates));
    rate(&format!("bare status patches, {patches} at once"), bare(|bare| bare.patches));
    rate("drain of a backlog", median(each(|round| round.drain.rate)));
    rate("drain of a backlog by a bare loop", median(each(|round| round.bare_loop.rate)));
    rate("pipeline", median(each(|round| round.pipeline.rate)));
    report.at_least("drain ÷ bare patches", each(|round| round.drain.of_patches()), 0.9);
    report.at_least("pipeline ÷ ideal", each(|round| round.pipeline.of_ideal()), 0.9);
    report.row("bare loop ÷ bare patches", spread(each(|round| round.bare_loop.of_patches())), "");
    let mut time = |what: &str, time: f64| report.row(&format!("CPU of {what}"), format!("{time:.2} ms"), "");
    time("API server and etcd for a bare patch", bare(|bare| millis(bare.patch_cpu)));
    time("API server and etcd for a delivery", median(each(|round| millis(round.cost.control_plane_cpu))));
    time("the operator for a delivery", median(each(|round| millis(round.cost.cpu))));
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
    let manifests = (0..count).map(objects::manifest).collect();
    objects::create(&stage.creator, &tenant.namespace, manifests, CREATORS).await;
    stage.collect_garbage().await;
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
    let manifests = (before..before + count).map(objects::manifest).collect();
    stage.collect_garbage().await;
    let begun = Instant::now();
    objects::create(&stage.creator, &tenant.namespace, manifests, CREATORS).await;
    until_delivered(operator, before + count).await;
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Between two looks at what is delivered.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// Waits until the operator has delivered `count` Notifications since its start.
pub async fn until_delivered(operator: &Operator, count: usize) {
    let (begun, mut printed) = (Instant::now(), Instant::now());
    let before = delivered(operator).await;
    loop {
        assert!(operator.process().exit_code().is_none() && begun.elapsed() < PATIENCE, "{}", operator.logs());
        let delivered = delivered(operator).await;
        if delivered >= count {
            return;
        }
        if printed.elapsed() > Duration::from_secs(10) {
            printed = Instant::now();
            say(format!("{delivered} of {count} delivered"));
        }
        // After half of what the rest takes at the rate so far: asking costs the operator, too.
        let rest = begun.elapsed().mul_f64((count - delivered) as f64 / (delivered - before).max(1) as f64);
        sleep((rest / 2).clamp(SHORTEST, LONGEST)).await;
    }
}

async fn delivered(operator: &Operator) -> usize {
    let metrics = operator.metrics().await.unwrap();
    let name = r#"tidings_notifications_finished_total{phase="Delivered"} "#;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or_default()
}

/// Writes that the API server has answered, by the audit log, the creator's apart.
struct Writes {
    notifications: usize,
    subscribers: usize,
    leases: usize,
}

impl Writes {
    async fn now(stage: &Stage) -> Self {
        let audit = stage.plane().audit().await.unwrap();
        let count = |resource: &str| {
            let of_operator = |user: &str| user.starts_with("system:serviceaccount:drain:");
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
