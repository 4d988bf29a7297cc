//! Rejections: whether they speak of an event or of the webhook, and what the user says that a status code means.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Authority, Behaviour, Receiver, endpoints::Reply};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use super::gates::{event, shop};
use crate::world::{CLIENT, PATIENCE, World, condition, path, tls_secret};

/// The number of Notifications with this phase and reason.
async fn count(world: &World, phase: &str, reason: &str) -> usize {
    let all = world.list("notifications").await;
    all.iter().filter(|n| n["status"]["phase"] == phase && n["status"]["reason"] == reason).count()
}

/// Waits until the Subscriber says that its webhook rejects all events.
async fn until_rejecting(world: &World) -> Value {
    world.until("subscriber", "shop", |s| condition(s, "Healthy")["reason"] == "RejectsAll").await
}

#[tokio::test]
async fn field_01_a_webhook_that_rejects_all_events_ends_five_and_holds_the_others() {
    let mut world = World::new("all-rejected").await;
    world.secret(CLIENT.1).await;
    let [expired, good] = [(); 2].map(|()| Authority::new().client_identity("tidings"));
    let tls = world.authority.server_identity(&[]).server_config_for_any_client();
    world.receiver = Receiver::start_with(tls, world.tokens.tokens()).await.unwrap();
    // As nginx does without a valid client certificate.
    let accepted = CertificateDer::from_pem_slice(good.certificate_pem.as_bytes()).unwrap();
    world.receiver.answer_by(&path("shop"), move |request| match &request.certificate {
        Some(certificate) if *certificate == accepted => Behaviour::status(204),
        _ => {
            Behaviour::reply(Reply::status(400).header("content-type", "text/html").body("No required SSL certificate"))
        }
    });
    world.apply(&tls_secret("hook-mtls", &expired)).await;
    let _operator = world.operator().await;
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["tls"]["clientCertificateSecretRef"] = json!({"name": "hook-mtls"});
            spec["abuseProtection"] = json!({"policy": "Disabled"});
        })
        .await;
    world.notifications("n", "shop", 50).await;
    let shown = until_rejecting(&world).await;
    let message = condition(&shown, "Healthy")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("(last: 400)") && message.contains("webhook.tls"), "{message}");
    assert_eq!(condition(&shown, "Ready")["status"], "True");
    assert_eq!(count(&world, "Failed", "Rejected").await, 5);

    world.apply(&tls_secret("hook-mtls", &good)).await;
    world.until_delivered(45).await;
    assert_eq!(count(&world, "Failed", "Rejected").await, 5);
    world.until("subscriber", "shop", |s| condition(s, "Healthy")["status"] == "True").await;
}

#[tokio::test]
async fn a_held_event_says_so_spends_no_attempt_and_a_restart_costs_no_more_events() {
    let world = shop("held", json!({"maxAttempts": 1, "backoff": {"initialSeconds": 1}})).await;
    // Slowly, so that more than five events are in flight when the first is rejected.
    world.receiver.answer_always(&path("shop"), Behaviour::status(422).after(Duration::from_millis(500)));
    world.notifications("n", "shop", 20).await;
    let mut operator = world.operator().await;
    until_rejecting(&world).await;
    let all = world.list("notifications").await;
    let held = all.iter().find(|n| n["status"]["reason"] == "RejectsAll").unwrap();
    let name = held["metadata"]["name"].as_str().unwrap();
    assert_eq!(held["status"]["lastAttempt"]["statusCode"], 422, "{name} was in flight when the circuit opened");
    assert_eq!((&held["status"]["attempts"], &held["status"]["deferredAttempts"]), (&json!(1), &json!(1)));
    assert_eq!(count(&world, "Failed", "Rejected").await, 5);

    operator.kill().await.unwrap();
    let before = world.posts(&path("shop")).len();
    operator.restart().await.unwrap();
    operator.ready(PATIENCE).await.unwrap();
    world.receiver.wait_for(&path("shop"), before + 1, PATIENCE).await.unwrap();
    assert_eq!(count(&world, "Failed", "Rejected").await, 5);
    assert_eq!(world.posts(&path("shop")).len(), before + 1, "one probe, and its event is held");

    // A changed spec causes a probe, and a success closes the circuit.
    world.receiver.answer_always(&path("shop"), Behaviour::status(204));
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.until_delivered(15).await;
}

#[tokio::test]
async fn events_of_another_type_are_tried_before_events_of_a_rejected_type() {
    let world = shop("types", json!({})).await;
    world.receiver.answer_by(&path("shop"), |request| {
        let is_poison = String::from_utf8_lossy(&request.body).contains("\"poison\"");
        Behaviour::status(if is_poison { 400 } else { 204 })
    });
    world.subscriber("shop", |spec| spec["suspend"] = true.into()).await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Suspended").await;
    let names = |prefix: &str, n: usize| (0..n).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    for name in names("a-poison", 12).iter().chain(&names("m-good", 1)).chain(&names("z-poison", 12)) {
        let type_ = if name.contains("poison") { "poison" } else { "t" };
        world.notification(name, "shop", json!({"source": "/s", "type": type_})).await;
    }
    world.subscriber("shop", |spec| spec["delivery"] = json!({"maxInFlight": 1})).await;
    until_rejecting(&world).await;
    // The next probe: it is neither the oldest nor the newest event.
    world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
    world.until_phase("m-good-0", "Delivered").await;
}

#[tokio::test]
async fn field_05_the_subscriber_says_what_a_status_code_means() {
    let world = World::new("responses").await;
    world.secret(CLIENT.1).await;
    let responses = [(409, "Deliver"), (404, "Fail"), (400, "Retry"), (418, "RenewToken"), (503, "Fail")];
    let responses: Vec<_> = responses.iter().map(|(code, action)| json!({"code": code, "action": action})).collect();
    world
        .subscriber("shop", |spec| {
            spec["webhook"]["responses"] = responses.into();
            spec["delivery"] = json!({"backoff": {"initialSeconds": 1, "maxSeconds": 1}});
        })
        .await;
    let _operator = world.operator().await;
    world.until_reason("shop", "Operational").await;
    for (code, phase, reason, attempts) in [
        (409, "Delivered", "Acknowledged", 1),
        (404, "Failed", "Rejected", 1),
        (503, "Failed", "Rejected", 1),
        (400, "Delivered", "Acknowledged", 2),
        (418, "Delivered", "Acknowledged", 1),
        (410, "Delivered", "Acknowledged", 2),
    ] {
        let before = world.posts(&path("shop")).len();
        let reply = Reply::status(code).header("retry-after", if code == 503 { "600" } else { "0" });
        world.receiver.answer_next(&path("shop"), 1, &Behaviour::reply(reply));
        let name = format!("n-{code}");
        world.notification(&name, "shop", event()).await;
        if code == 410 {
            world.until_reason("shop", "EndpointGone").await;
            world.kubectl(&["annotate", "subr", "shop", "tidings.dev/reconcile-requested-at=1"]).await.ok().unwrap();
        }
        let done = world.until_phase(&name, phase).await;
        assert_eq!(
            (&done["status"]["reason"], &done["status"]["attempts"]),
            (&json!(reason), &json!(attempts)),
            "{code}"
        );
        let posts = &world.posts(&path("shop"))[before..];
        assert_eq!(posts.len(), if phase == "Failed" || code == 409 { 1 } else { 2 }, "{code}");
        if code == 418 {
            assert_ne!(posts[0].token(), posts[1].token(), "the token was not renewed");
        }
    }
    let message = |name: &str| format!("the webhook answered {name}, which ends the event (webhook.responses)");
    assert_eq!(world.get("notification", "n-404").await["status"]["message"], message("404"));
}

#[tokio::test]
async fn rejections_by_rule_never_hold_other_events() {
    for (name, change) in [
        ("ended-by-code", json!({"webhook": {"responses": [{"code": 400, "action": "Fail"}]}})),
        ("ended-always", json!({"delivery": {"onRejection": "Fail"}})),
    ] {
        let world = World::new(name).await;
        world.secret(CLIENT.1).await;
        world
            .subscriber("shop", |spec| {
                for (field, more) in change.as_object().unwrap() {
                    for (name, value) in more.as_object().unwrap() {
                        spec[field][name] = value.clone();
                    }
                }
            })
            .await;
        world.receiver.answer_always(&path("shop"), Behaviour::status(400));
        let _operator = world.operator().await;
        world.notifications("n", "shop", 12).await;
        let mut failed = 0;
        while failed < 12 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            failed = count(&world, "Failed", "Rejected").await;
        }
    }
}

#[tokio::test]
async fn a_user_who_says_that_the_events_are_the_cause_ends_the_state() {
    for (name, section, change) in [
        ("then-by-code", "webhook", json!({"responses": [{"code": 400, "action": "Fail"}]})),
        ("then-always", "delivery", json!({"onRejection": "Fail"})),
    ] {
        let world = shop(name, json!({})).await;
        world.receiver.answer_always(&path("shop"), Behaviour::status(400));
        let _operator = world.operator().await;
        world.notifications("n", "shop", 20).await;
        until_rejecting(&world).await;
        world
            .subscriber("shop", |spec| {
                for (field, value) in change.as_object().unwrap() {
                    spec[section][field] = value.clone();
                }
            })
            .await;
        let mut failed = 0;
        while failed < 20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            failed = count(&world, "Failed", "Rejected").await;
        }
        world.until("subscriber", "shop", |s| condition(s, "Healthy")["status"] == "True").await;
    }
}
