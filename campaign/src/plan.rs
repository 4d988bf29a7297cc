//! Which fault comes when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use testkit::proxies::Link;

use crate::random::Random;

/// Something that goes wrong, for a while where it has a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL for the operator that leads; it is started again, as a kubelet would.
    KillLeader,
    /// SIGTERM for the operator that leads.
    ReplaceLeader,
    /// SIGKILL for an operator that stands by.
    KillStandby,
    /// SIGSTOP, later SIGCONT, for the operator that leads.
    StopLeader(Duration),
    KillApiServer,
    StopApiServer(Duration),
    KillEtcd,
    StopEtcd(Duration),
    /// Every connection of the operators to the API server is reset, watches too.
    CutWatches,
    /// The way from the leader alone to the API server.
    LeaderLink(Link, Duration),
    /// The way from all operators to the API server.
    ApiLink(Link, Duration),
    /// A third of all requests to the API server are answered so.
    ApiRefuses(u16, Duration),
    /// The answers to half of the status writes are lost after the API server has done them.
    LoseAnswers(Duration),
    /// Listings break off midway.
    BreakListings(Duration),
    /// Watches fail because their resourceVersion is too old.
    ExpireWatches(Duration),
    /// A third of the status writes reach the API server seconds later.
    LateWrites(Duration),
    /// What the leader writes into statuses arrives when its Lease has run out: it is killed, or stopped for so long.
    StrandWrites(Option<Duration>),
    WebhookLink(Link, Duration),
    TokenLink(Link, Duration),
    TokenRefuses(u16, Duration),
    /// No token issued so far is valid any more.
    RevokeTokens,
    /// The token service knows the client by another secret, and the Secret has it this much later.
    RotateSecret(Duration),
    /// Other clients write to statuses, 50 times a second.
    StatusWrites(Duration),
    /// Other clients write labels, 50 times a second.
    LabelWrites(Duration),
    /// Hundreds of Subscribers are listed again, slowly, while other programs change some.
    Relist,
    /// No operator runs, and what is created then expires meanwhile.
    Absence(Duration),
    /// The leader is halted, another one follows and gives the Lease back, and the first goes on.
    LeaseTwice(Halt),
    /// The operators have no right to one namespace.
    Bar(Duration),
    /// One namespace is deleted, for good.
    Doom,
}

/// How a leader is halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// SIGSTOP, later SIGCONT.
    Stop,
    /// Its way to the API server is half open.
    CutOff,
}

/// A fault and when it begins, from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
}

impl Fault {
    /// Whether another operator may lead by it.
    pub(crate) fn moves_the_lease(self) -> bool {
        matches!(
            self,
            Self::KillLeader
                | Self::ReplaceLeader
                | Self::KillStandby
                | Self::StopLeader(_)
                | Self::LeaderLink(..)
                | Self::StrandWrites(_)
                | Self::Absence(_)
                | Self::LeaseTwice(_)
        )
    }
}

type Draw = fn(&mut Random) -> Fault;

/// Every kind once; those with more than one face draw it.
const DECK: [Draw; 31] = [
    |_| Fault::KillLeader,
    |_| Fault::ReplaceLeader,
    |_| Fault::KillStandby,
    |r| Fault::StopLeader(r.time(2_000..8_000)),
    // Past the life of the Lease.
    |r| Fault::StopLeader(r.time(18_000..22_000)),
    |_| Fault::KillApiServer,
    |r| Fault::StopApiServer(r.time(2_000..8_000)),
    |_| Fault::KillEtcd,
    |r| Fault::StopEtcd(r.time(2_000..6_000)),
    |_| Fault::CutWatches,
    // Longer than the lease duration: a stalled request arrives after another operator leads.
    |r| Fault::LeaderLink(Link::Stall, r.time(18_000..22_000)),
    |r| Fault::LeaderLink(Link::HalfOpen, r.time(2_000..5_000)),
    |r| Fault::ApiLink(bad_link(r), r.time(2_000..6_000)),
    |r| Fault::ApiRefuses(*r.pick(&[409, 429]), r.time(3_000..8_000)),
    |r| Fault::ApiRefuses(*r.pick(&[500, 503]), r.time(3_000..8_000)),
    |r| Fault::LoseAnswers(r.time(3_000..8_000)),
    |r| Fault::BreakListings(r.time(5_000..10_000)),
    |r| Fault::ExpireWatches(r.time(2_000..5_000)),
    |r| Fault::LateWrites(r.time(5_000..10_000)),
    |r| {
        let stopped = r.time(18_000..22_000);
        Fault::StrandWrites(r.percent(50).then_some(stopped))
    },
    |r| Fault::WebhookLink(bad_link(r), r.time(2_000..5_000)),
    |r| Fault::TokenLink(bad_link(r), r.time(2_000..6_000)),
    |r| match r.percent(50) {
        true => Fault::TokenRefuses(*r.pick(&[429, 500, 503]), r.time(2_000..6_000)),
        false => Fault::RevokeTokens,
    },
    |r| Fault::RotateSecret(r.time(1_000..5_000)),
    |r| Fault::StatusWrites(r.time(5_000..10_000)),
    |r| Fault::LabelWrites(r.time(5_000..10_000)),
    |_| Fault::Relist,
    |r| Fault::Absence(r.time(6_000..9_000)),
    |r| Fault::LeaseTwice(*r.pick(&[Halt::Stop, Halt::CutOff])),
    |r| Fault::Bar(r.time(15_000..40_000)),
    |_| Fault::Doom,
];

fn bad_link(random: &mut Random) -> Link {
    let delay = Link::Delay(random.time(20..150));
    let cut = Link::Cut(usize::try_from(random.below(20_000)).unwrap_or_default());
    *random.pick(&[Link::Refuse, Link::HalfOpen, delay, cut])
}

/// The faults of a campaign, in their order. Each kind comes once before any comes again; they may overlap. With
/// `only`, the faults whose description holds one of these texts come alone.
pub(crate) fn plan(seed: u64, duration: Duration, only: &[String]) -> Vec<Step> {
    let mut random = Random::new(seed);
    let (mut steps, mut at) = (Vec::new(), random.time(2_000..4_000));
    loop {
        let mut deck = DECK;
        random.shuffle(&mut deck);
        let before = at;
        for draw in deck {
            let fault = draw(&mut random);
            if at >= duration {
                return steps;
            }
            if only.is_empty() || only.iter().any(|text| fault.to_string().contains(text)) {
                steps.push(Step { at, fault });
                at += random.time(2_500..6_500);
            }
        }
        // None is like that.
        if at == before {
            return steps;
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, time) = match *self {
            Self::KillLeader => ("the leader is killed".into(), None),
            Self::ReplaceLeader => ("the leader receives SIGTERM".into(), None),
            Self::KillStandby => ("the standby is killed".into(), None),
            Self::StopLeader(time) => ("the leader is stopped".into(), Some(time)),
            Self::KillApiServer => ("the API server is killed".into(), None),
            Self::StopApiServer(time) => ("the API server is stopped".into(), Some(time)),
            Self::KillEtcd => ("etcd is killed".into(), None),
            Self::StopEtcd(time) => ("etcd is stopped".into(), Some(time)),
            Self::CutWatches => ("all connections to the API server are reset".into(), None),
            Self::LeaderLink(link, time) => (format!("leader to API server: {link}"), Some(time)),
            Self::ApiLink(link, time) => (format!("operators to API server: {link}"), Some(time)),
            Self::ApiRefuses(code, time) => (format!("the API server answers {code}"), Some(time)),
            Self::LoseAnswers(time) => ("answers to status writes are lost".into(), Some(time)),
            Self::BreakListings(time) => ("listings break off".into(), Some(time)),
            Self::ExpireWatches(time) => ("watches are too old (410)".into(), Some(time)),
            Self::LateWrites(time) => ("status writes arrive late".into(), Some(time)),
            Self::StrandWrites(None) => ("status writes are held up, and the leader is killed".into(), None),
            Self::StrandWrites(time) => ("status writes are held up, and the leader is stopped".into(), time),
            Self::WebhookLink(link, time) => (format!("operators to webhooks: {link}"), Some(time)),
            Self::TokenLink(link, time) => (format!("operators to token service: {link}"), Some(time)),
            Self::TokenRefuses(code, time) => (format!("the token service answers {code}"), Some(time)),
            Self::RevokeTokens => ("all tokens are revoked".into(), None),
            Self::RotateSecret(time) => ("the client secret is another, which the Secret has not".into(), Some(time)),
            Self::StatusWrites(time) => ("others write statuses".into(), Some(time)),
            Self::LabelWrites(time) => ("others write labels".into(), Some(time)),
            Self::Relist => ("Subscribers are listed again, slowly, and other programs change some".into(), None),
            Self::Absence(time) => ("no operator runs, and events expire".into(), Some(time)),
            Self::LeaseTwice(Halt::Stop) => {
                ("the leader is stopped, and its follower gives the Lease back".into(), None)
            }
            Self::LeaseTwice(Halt::CutOff) => {
                ("the leader is cut off, and its follower gives the Lease back".into(), None)
            }
            Self::Bar(time) => ("the operators lose their rights to a namespace".into(), Some(time)),
            Self::Doom => ("a namespace is deleted".into(), None),
        };
        match time {
            Some(time) => write!(f, "{what}, for {:.1} s", time.as_secs_f32()),
            None => f.write_str(&what),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7, LONG, &[]), plan(7, LONG, &[]));
        assert_ne!(plan(7, LONG, &[]), plan(8, LONG, &[]));
    }

    #[test]
    fn a_shorter_plan_is_the_beginning_of_a_longer_one() {
        let (short, long) = (plan(7, Duration::from_secs(40), &[]), plan(7, LONG, &[]));
        assert!(short.len() >= 6 && long.starts_with(&short), "{short:?}");
    }

    #[test]
    fn a_plan_may_hold_some_kinds_alone() {
        let only = |text: &str| plan(7, LONG, &[text.to_owned()]);
        let steps = only("Lease back");
        assert!(steps.len() > 50 && steps.iter().all(|step| matches!(step.fault, Fault::LeaseTwice(_))));
        assert_eq!(only("no such fault"), []);
    }

    #[test]
    fn every_kind_comes_in_each_round_in_order_and_within_the_time() {
        let steps = plan(7, LONG, &[]);
        let kinds = |steps: &[Step]| steps.iter().map(|step| discriminant(&step.fault)).collect::<HashSet<_>>();
        // One draw has two kinds, two kinds have two draws.
        assert!(kinds(&steps[..DECK.len()]).len() >= DECK.len() - 4);
        assert_eq!(kinds(&steps).len(), 29);
        assert!(steps.is_sorted_by_key(|step| step.at) && steps.last().unwrap().at < LONG);
    }
}
