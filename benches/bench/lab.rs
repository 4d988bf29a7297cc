use crate::{bare, report::median, say, stage::Stage, throughput, usage};

pub async fn run(stage: &Stage, status: &serde_json::Value) {
    let var = |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (count, rounds) = (var("LAB_N", 1000), var("LAB_ROUNDS", 12));
    let bins = std::env::var("LAB_BINS").unwrap();
    let mut all: std::collections::BTreeMap<String, Vec<[f64; 4]>> = Default::default();
    for round in 1..=rounds {
        let at_once = 32;
        let tenant = stage.tenant(&format!("lab-{round}-{at_once}")).await;
        let manifests = (0..count).map(bare::manifest).collect();
        let (_, created) = bare::create(&stage.creator, &tenant.namespace, manifests, 32).await;
        let before = stage.control_plane_cpu().await;
        let own = usage::cpu(std::process::id());
        let rate = bare::patch(&tenant.client, &tenant.namespace, &created, status, at_once).await;
        let cpu = (stage.control_plane_cpu().await - before).as_secs_f64() * 1e3 / count as f64;
        let own = (usage::cpu(std::process::id()) - own).as_secs_f64() * 1e3 / count as f64;
        all.entry("bare".into()).or_default().push([rate, cpu, own, 0.0]);
        for bin in bins.split(',') {
            let short = bin.rsplit('-').next().unwrap();
            let tenant = stage.tenant(&format!("labd-{round}-{short}")).await;
            let manifests = (0..count).map(bare::manifest).collect();
            bare::create(&stage.creator, &tenant.namespace, manifests, 32).await;
            let operator = tenant.operator_of(bin, &[]).await;
            let drain = throughput::drained(stage, &operator, &tenant.namespace, count).await;
            let rss = usage::rss(operator.process().pid());
            all.entry(short.into()).or_default().push([drain.rate, drain.control_plane_cpu.as_secs_f64() * 1e3, drain.cpu.as_secs_f64() * 1e3, rss]);
            operator.terminate().await.unwrap();
        }
        say(format!("LAB round {round}"));
        for (name, values) in &all {
            let m = |i: usize| median(values.iter().map(|v| v[i]).collect());
            let ratio = median(values.iter().zip(&all["bare"]).map(|(v, b)| v[0] / b[0]).collect());
            say(format!("LAB {name} rate {:.0} cpu {:.2} own {:.3} rss {:.1} ratio {ratio:.3} last {:.0}", m(0), m(1), m(2), m(3), values.last().unwrap()[0]));
        }
    }
}
